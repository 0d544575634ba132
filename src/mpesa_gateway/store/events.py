"""Tables `transaction_events` and `conflicts`: who said what, and what contradicts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from mpesa_gateway.store.pool import Connection

Source = Literal["caller", "push", "callback", "query", "gateway", "person"]


@dataclass(frozen=True)
class Event:
    """One step of a transaction."""

    at: datetime
    source: str
    kind: str
    detail: dict[str, Any]


def append(
    conn: Connection, row: int, source: Source, kind: str, now: datetime, **detail: Any
) -> None:
    """Record a step. `detail` holds no secret and no whole phone number."""
    known = {name: value for name, value in detail.items() if value is not None}
    conn.execute(
        "INSERT INTO transaction_events (transaction_id, at, source, kind, detail)"
        " VALUES (%s, %s, %s, %s, %s)",
        [row, now, source, kind, Jsonb(known)],
    )


def list_of_transaction(conn: Connection, row: int) -> list[Event]:
    """Every step, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Event))
    cursor.execute(
        "SELECT at, source, kind, detail FROM transaction_events"
        " WHERE transaction_id = %s ORDER BY id",
        [row],
    )
    return cursor.fetchall()


@dataclass(frozen=True)
class Conflict:
    """A truth that contradicts a final state."""

    id: int
    kind: str
    receipt: str | None
    result_code: str | None
    opened_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    closing_note: str | None


def open_conflict(
    conn: Connection,
    row: int,
    callback_id: int,
    kind: str,
    *,
    receipt: str | None,
    result_code: str,
    now: datetime,
) -> int | None:
    """The new conflict's id, None when the same contradiction was recorded before."""
    cursor = conn.execute(
        "INSERT INTO conflicts (transaction_id, callback_id, kind, receipt, result_code, opened_at)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id",
        [row, callback_id, kind, receipt, result_code, now],
    )
    inserted = cursor.fetchone()
    return inserted[0] if inserted else None


def list_conflicts(conn: Connection, row: int) -> list[Conflict]:
    """The conflicts of a transaction, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Conflict))
    cursor.execute(
        "SELECT id, kind, receipt, result_code, opened_at, closed_at, closed_by, closing_note"
        " FROM conflicts WHERE transaction_id = %s ORDER BY id",
        [row],
    )
    return cursor.fetchall()


def close_conflicts(conn: Connection, row: int, *, by: str, note: str, now: datetime) -> list[str]:
    """Close every open conflict of a transaction on a person's word; their kinds."""
    cursor = conn.execute(
        "UPDATE conflicts SET closed_at = %s, closed_by = %s, closing_note = %s"
        " WHERE transaction_id = %s AND closed_at IS NULL RETURNING kind",
        [now, by, note, row],
    )
    return sorted(row[0] for row in cursor)


def list_open_conflicts(conn: Connection, public_ids: Sequence[uuid.UUID]) -> dict[str, str]:
    """The kinds of the open conflicts of these transactions, by their public id."""
    cursor = conn.execute(
        "SELECT t.internal_transaction_id, string_agg(c.kind, ', ' ORDER BY c.id)"
        " FROM transactions t JOIN conflicts c ON c.transaction_id = t.id"
        " WHERE t.internal_transaction_id = ANY(%s) AND c.closed_at IS NULL GROUP BY 1",
        [list(public_ids)],
    )
    return {str(row[0]): row[1] for row in cursor}

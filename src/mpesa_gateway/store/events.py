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

# Of one payment: whoever has its token may send from any number of addresses.
MAX_REFUSED_SENDERS = 5

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
        """
        INSERT INTO transaction_events (transaction_id, at, source, kind, detail)
        VALUES (%(row)s, %(now)s, %(source)s, %(kind)s, %(known)s)
        """,
        {"row": row, "now": now, "source": source, "kind": kind, "known": Jsonb(known)},
    )


def list_of_transaction(conn: Connection, row: int) -> list[Event]:
    """Every step, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Event))
    cursor.execute(
        """
        SELECT at, source, kind, detail
          FROM transaction_events
         WHERE transaction_id = %(row)s
         ORDER BY id
        """,
        {"row": row},
    )
    return cursor.fetchall()


@dataclass(frozen=True)
class RefusedSender:
    """Who brought a payment's own token from an address that is not on the allowlist."""

    transaction_id: uuid.UUID
    address: str
    header: str
    at: datetime


def append_refused_senders(conn: Connection, senders: Sequence[RefusedSender]) -> None:
    """Record each refused address once on its payment, and only the first few."""
    conn.execute(
        """
        INSERT INTO transaction_events (transaction_id, at, source, kind, detail)
        SELECT t.id, refused.at, 'callback', 'sender_refused',
               jsonb_build_object('address', refused.address, 'header', refused.header)
          FROM unnest(%(ids)s::uuid[], %(addresses)s::text[], %(headers)s::text[],
                      %(times)s::timestamptz[]) AS refused (id, address, header, at)
          JOIN transactions t ON t.internal_transaction_id = refused.id
         WHERE (SELECT count(*)
                  FROM transaction_events known
                 WHERE known.transaction_id = t.id AND known.kind = 'sender_refused') < %(most)s
           AND NOT EXISTS (SELECT
                             FROM transaction_events known
                            WHERE known.transaction_id = t.id AND known.kind = 'sender_refused'
                              AND known.detail ->> 'address' = refused.address)
        """,
        {
            "ids": [it.transaction_id for it in senders],
            "addresses": [it.address for it in senders],
            "headers": [it.header for it in senders],
            "times": [it.at for it in senders],
            "most": MAX_REFUSED_SENDERS,
        },
    )


def count_silent_answers(conn: Connection, row: int, since: datetime) -> int:
    """How often Safaricom has answered a query without information since then.

    An answer "in flight" begins the count anew: it did tell something.
    """
    cursor = conn.execute(
        """
        SELECT count(*)
          FROM transaction_events
         WHERE transaction_id = %(row)s AND source = 'query' AND kind = 'said_no_information'
           AND detail ? 'is_answer' AND at >= %(since)s
           AND id > coalesce((SELECT max(id)
                                FROM transaction_events
                               WHERE transaction_id = %(row)s AND kind = 'said_in_flight'), 0)
        """,
        {"row": row, "since": since},
    )
    counted = cursor.fetchone()
    return counted[0] if counted else 0


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
    callback_id: int | None,
    kind: str,
    *,
    receipt: str | None,
    result_code: str | None,
    now: datetime,
) -> int | None:
    """The new conflict's id, None when the same contradiction was recorded before."""
    cursor = conn.execute(
        """
        INSERT INTO conflicts (transaction_id, callback_id, kind, receipt, result_code,
            opened_at)
        VALUES (%(row)s, %(callback_id)s, %(kind)s, %(receipt)s, %(result_code)s, %(now)s)
            ON CONFLICT DO NOTHING
        RETURNING id
        """,
        {
            "row": row,
            "callback_id": callback_id,
            "kind": kind,
            "receipt": receipt,
            "result_code": result_code,
            "now": now,
        },
    )
    inserted = cursor.fetchone()
    return inserted[0] if inserted else None


def list_conflicts(conn: Connection, row: int) -> list[Conflict]:
    """The conflicts of a transaction, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Conflict))
    cursor.execute(
        """
        SELECT id, kind, receipt, result_code, opened_at, closed_at, closed_by, closing_note
          FROM conflicts
         WHERE transaction_id = %(row)s
         ORDER BY id
        """,
        {"row": row},
    )
    return cursor.fetchall()


def close_conflicts(conn: Connection, row: int, *, by: str, note: str, now: datetime) -> list[str]:
    """Close every open conflict of a transaction on a person's word; their kinds."""
    cursor = conn.execute(
        """
        UPDATE conflicts
           SET closed_at = %(now)s, closed_by = %(by)s, closing_note = %(note)s
         WHERE transaction_id = %(row)s
           AND closed_at IS NULL
        RETURNING kind
        """,
        {"now": now, "by": by, "note": note, "row": row},
    )
    return sorted(row[0] for row in cursor)


def list_open_conflicts(conn: Connection, public_ids: Sequence[uuid.UUID]) -> dict[str, str]:
    """The kinds of the open conflicts of these transactions, by their public id."""
    cursor = conn.execute(
        """
        SELECT t.internal_transaction_id, string_agg(c.kind, ', ' ORDER BY c.id)
          FROM transactions t
          JOIN conflicts c ON c.transaction_id = t.id
         WHERE t.internal_transaction_id = ANY(%(public_ids)s)
           AND c.closed_at IS NULL
         GROUP BY 1
        """,
        {"public_ids": list(public_ids)},
    )
    return {str(row[0]): row[1] for row in cursor}

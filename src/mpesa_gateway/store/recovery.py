"""Tables `recovery_holds` and `lost_rows`: why no payment starts, and what had been lost."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from psycopg import errors
from psycopg.rows import class_row

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.pool import Connection


@dataclass(frozen=True)
class Hold:
    """A reason why no payment starts, until an operator accepts it."""

    id: uuid.UUID
    opened_at: datetime
    opened_by: str
    reason: str
    accepted_at: datetime | None = None
    accepted_by: str | None = None
    accepted_reason: str | None = None


@contextmanager
def _on_current_schema() -> Iterator[None]:
    """A restored database may be of an earlier release: then nothing can be read here yet."""
    try:
        yield
    except errors.UndefinedTable as error:
        raise UnavailableError("the schema is behind: run mpesa-gateway migrate") from error


def write_hold(conn: Connection, hold: Hold) -> None:
    """Store the hold, unless it is stored: a process repeats it on every database it meets.

    Raises UnavailableError on an earlier schema.
    """
    with _on_current_schema():
        conn.execute(
            """
            INSERT INTO recovery_holds (id, opened_at, opened_by, reason)
            VALUES (%(id)s, %(opened_at)s, %(opened_by)s, %(reason)s)
                ON CONFLICT (id) DO NOTHING
            """,
            vars(hold),
        )


def find_hold(conn: Connection, hold_id: uuid.UUID | None) -> Hold | None:
    """Return the oldest open hold; else the one with that id, accepted or not; else None.

    Raises UnavailableError on an earlier schema.
    """
    cursor = conn.cursor(row_factory=class_row(Hold))
    with _on_current_schema():
        cursor.execute(
            """
            SELECT *
              FROM recovery_holds
             WHERE accepted_at IS NULL OR id = %(id)s
             ORDER BY accepted_at IS NOT NULL, opened_at
             LIMIT 1
            """,
            {"id": hold_id},
        )
    return cursor.fetchone()


def list_holds(conn: Connection, limit: int) -> list[Hold]:
    """Return open holds first, then the newest."""
    cursor = conn.cursor(row_factory=class_row(Hold))
    cursor.execute(
        """
        SELECT *
          FROM recovery_holds
         ORDER BY accepted_at IS NOT NULL, opened_at DESC
         LIMIT %(limit)s
        """,
        {"limit": limit},
    )
    return cursor.fetchall()


def accept_holds(conn: Connection, person: str, reason: str, now: datetime) -> int:
    """End every open hold on an operator's word; how many there were."""
    cursor = conn.execute(
        """
        UPDATE recovery_holds
           SET accepted_at = %(now)s, accepted_by = %(person)s, accepted_reason = %(reason)s
         WHERE accepted_at IS NULL
        """,
        {"now": now, "person": person, "reason": reason},
    )
    return cursor.rowcount


@dataclass(frozen=True)
class LostRow:
    """Something that a process remembered and that the database had lost."""

    kind: str
    payment: uuid.UUID | None
    about: str
    written_again: bool
    noticed_at: datetime


def write_lost(conn: Connection, lost: LostRow) -> None:
    """Store what was lost, once, whoever remembered it."""
    conn.execute(
        """
        INSERT INTO lost_rows (kind, payment, about, written_again, noticed_at)
        VALUES (%(kind)s, %(payment)s, %(about)s, %(written_again)s, %(noticed_at)s)
            ON CONFLICT (kind, payment, about) DO NOTHING
        """,
        vars(lost),
    )


def list_lost(conn: Connection, limit: int) -> list[LostRow]:
    """Return the newest first, but for webhooks."""
    cursor = conn.cursor(row_factory=class_row(LostRow))
    cursor.execute(
        """
        SELECT kind, payment, about, written_again, noticed_at
          FROM lost_rows
         WHERE kind <> 'webhook'
         ORDER BY id DESC
         LIMIT %(limit)s
        """,
        {"limit": limit},
    )
    return cursor.fetchall()


@dataclass(frozen=True)
class LostWebhook:
    """A webhook that an endpoint took and the database had lost.

    `payment_status` is what the database says of its payment now; None when it is not there.
    """

    payment: uuid.UUID
    merchant: str
    type: str | None
    receipt: str | None
    webhook_id: str
    noticed_at: datetime
    payment_status: str | None


def list_lost_webhooks(conn: Connection, limit: int) -> list[LostWebhook]:
    """Return the newest first."""
    cursor = conn.cursor(row_factory=class_row(LostWebhook))
    cursor.execute(
        """
        SELECT l.payment, told.merchant, told.type, told.receipt, told.webhook_id, l.noticed_at,
               t.status AS payment_status
          FROM lost_rows l
         CROSS JOIN jsonb_to_record(CASE WHEN l.kind = 'webhook' THEN l.about::jsonb END)
                       AS told (merchant text, type text, receipt text, webhook_id text)
          LEFT JOIN transactions t ON t.internal_transaction_id = l.payment
         WHERE l.kind = 'webhook'
         ORDER BY l.id DESC
         LIMIT %(limit)s
        """,
        {"limit": limit},
    )
    return cursor.fetchall()


def list_told(conn: Connection, receipts: Sequence[str]) -> dict[str, str]:
    """Return who was told of those receipts, by webhooks that the database had lost."""
    cursor = conn.execute(
        """
        SELECT told.receipt, told.merchant
          FROM lost_rows l
         CROSS JOIN jsonb_to_record(CASE WHEN l.kind = 'webhook' THEN l.about::jsonb END)
                       AS told (merchant text, receipt text)
         WHERE l.kind = 'webhook' AND told.receipt = ANY(%(receipts)s)
        """,
        {"receipts": list(receipts)},
    )
    return {row[0]: row[1] for row in cursor}


def count_lost(conn: Connection) -> dict[str, dict[str, int]]:
    """Return by kind how many were `written_again`, and how many `not_written_again`."""
    cursor = conn.execute(
        """
        SELECT kind,
               count(*) FILTER (WHERE written_again),
               count(*) FILTER (WHERE NOT written_again)
          FROM lost_rows
         GROUP BY kind
         ORDER BY kind
        """
    )
    return {
        kind: {"written_again": again, "not_written_again": gone} for kind, again, gone in cursor
    }

"""Table `callbacks`, the inbox: what became of every body that was answered 200.

The statement that keeps them is in `store/inbox.py`.
What names a row by its id hides its state from the planner: docs/decisions/0013.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from mpesa_gateway.store.pool import Connection

# Each path has an index of its own, so who asks by transaction says `(by_token OR NOT by_token)`:
# without it neither is used, and each end of a payment reads the whole table.


@dataclass(frozen=True)
class Callback:
    """A row of the inbox, as applying it needs it."""

    id: int
    transaction_id: int | None
    by_token: bool
    body: bytes
    source: str | None
    received_at: datetime
    requeued_by: str | None
    traceparent: str | None


def lock_received(conn: Connection, callback_id: int) -> Callback | None:
    """The callback, locked; None when it was applied or another worker is at it."""
    cursor = conn.cursor(row_factory=class_row(Callback))
    cursor.execute(
        "SELECT id, transaction_id, by_token, body, host(source) AS source, received_at,"
        " requeued_by, traceparent FROM callbacks WHERE id = %s AND state || '' = 'RECEIVED'"
        " FOR UPDATE SKIP LOCKED",
        [callback_id],
    )
    return cursor.fetchone()


def save_outcome(
    conn: Connection,
    callback_id: int,
    state: str,
    outcome: str,
    *,
    transaction: int | None,
    checkout_request_id: str | None,
    now: datetime,
) -> None:
    """What applying the callback did. `state` is APPLIED, HELD or QUARANTINED."""
    conn.execute(
        "UPDATE callbacks SET state = %s, outcome = %s, applied_at = %s, checkout_request_id = %s,"
        " transaction_id = coalesce(transaction_id, %s) WHERE id = %s AND state || '' = 'RECEIVED'",
        [state, outcome, now, checkout_request_id, transaction, callback_id],
    )


def release_unmatched(conn: Connection, checkout_request_id: str, now: datetime) -> list[int]:
    """Offer again what came before its push's answer; the callbacks' ids."""
    cursor = conn.execute(
        "UPDATE callbacks SET state = 'RECEIVED', outcome = NULL, applied_at = NULL,"
        " next_attempt_at = %s"
        " WHERE checkout_request_id = %s AND state = 'QUARANTINED' AND outcome = 'unmatched'"
        " RETURNING id",
        [now, checkout_request_id],
    )
    return [row[0] for row in cursor]


def find_held_body(conn: Connection, transaction: int) -> bytes | None:
    """The body of a success that waits for a query to confirm it."""
    cursor = conn.execute(
        "SELECT body FROM callbacks WHERE transaction_id = %s AND (by_token OR NOT by_token)"
        " AND state = 'HELD' ORDER BY id LIMIT 1",
        [transaction],
    )
    row = cursor.fetchone()
    return row[0] if row else None


def has_unapplied(conn: Connection, transaction: int) -> bool:
    """Whether a callback of the transaction is in the inbox and about to be applied."""
    cursor = conn.execute(
        "SELECT EXISTS (SELECT FROM callbacks WHERE transaction_id = %s AND by_token"
        " AND state || '' = 'RECEIVED')",
        [transaction],
    )
    row = cursor.fetchone()
    return bool(row and row[0])


def list_due(conn: Connection, before: datetime, limit: int) -> list[int]:
    """Callbacks whose time has come, oldest first."""
    cursor = conn.execute(
        "SELECT id FROM callbacks WHERE state = 'RECEIVED' AND next_attempt_at <= %s"
        " ORDER BY next_attempt_at LIMIT %s",
        [before, limit],
    )
    return [row[0] for row in cursor]


def count_failure(
    conn: Connection, callback_id: int, *, retry_at: datetime, poison_after: int, now: datetime
) -> bool:
    """Applying raised an error: try later, or quarantine what failed too often (then True)."""
    cursor = conn.execute(
        "UPDATE callbacks SET attempts = attempts + 1, next_attempt_at = %(retry_at)s,"
        " state = CASE WHEN attempts + 1 >= %(most)s THEN 'QUARANTINED' ELSE state END,"
        " outcome = CASE WHEN attempts + 1 >= %(most)s THEN 'processing_failed' END,"
        " applied_at = CASE WHEN attempts + 1 >= %(most)s THEN %(now)s::timestamptz END"
        " WHERE id = %(id)s AND state || '' = 'RECEIVED' RETURNING state = 'QUARANTINED'",
        {"id": callback_id, "retry_at": retry_at, "most": poison_after, "now": now},
    )
    row = cursor.fetchone()
    return bool(row and row[0])


def requeue(conn: Connection, callback_id: int, person: str, now: datetime) -> bool:
    """Offer a quarantined callback again, on a person's word. False when it is not there."""
    cursor = conn.execute(
        "UPDATE callbacks SET state = 'RECEIVED', outcome = NULL, applied_at = NULL, attempts = 0,"
        " next_attempt_at = %s, requeued_by = %s WHERE id = %s AND state = 'QUARANTINED'",
        [now, person, callback_id],
    )
    return cursor.rowcount == 1


@dataclass(frozen=True)
class CallbackRow:
    """A row of the inbox, as a person sees it."""

    id: int
    transaction_id: uuid.UUID | None
    by_token: bool
    source: str | None
    received_at: datetime
    last_received_at: datetime
    copies: int
    state: str
    outcome: str | None
    attempts: int
    applied_at: datetime | None
    requeued_by: str | None
    size: int
    body_removed_at: datetime | None


_VIEW = (
    "SELECT c.id, t.internal_transaction_id AS transaction_id, c.by_token,"
    " host(c.source) AS source, c.received_at, c.last_received_at, c.copies, c.state, c.outcome,"
    " c.attempts, c.applied_at, c.requeued_by, octet_length(c.body) AS size,"
    " c.body_removed_at"
    " FROM callbacks c LEFT JOIN transactions t ON t.id = c.transaction_id"
)


def list_newest(
    conn: Connection, *, state: str | None, before: datetime | None = None, limit: int
) -> list[CallbackRow]:
    """Callbacks that came before then, newest first; None means any."""
    cursor = conn.cursor(row_factory=class_row(CallbackRow))
    cursor.execute(
        f"{_VIEW} WHERE (%(state)s::text IS NULL OR c.state = %(state)s)"
        " AND (%(before)s::timestamptz IS NULL OR c.received_at < %(before)s)"
        " ORDER BY c.id DESC LIMIT %(limit)s",
        {"state": state, "before": before, "limit": limit},
    )
    return cursor.fetchall()


def list_of_transaction(conn: Connection, transaction: int) -> list[CallbackRow]:
    """The callbacks of a transaction, newest first."""
    cursor = conn.cursor(row_factory=class_row(CallbackRow))
    cursor.execute(
        f"{_VIEW} WHERE c.transaction_id = %s AND (c.by_token OR NOT c.by_token)"
        " ORDER BY c.id DESC",
        [transaction],
    )
    return cursor.fetchall()

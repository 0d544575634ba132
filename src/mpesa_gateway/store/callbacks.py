"""Table `callbacks`, the inbox: what became of every body that was answered 200.

The statement that keeps them is in `store/inbox.py`.
What names a row by its id hides its state from the planner: docs/decisions/0013.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from mpesa_gateway.store.pool import Connection

# A callback's time is the API process's that took it, its push's the one's that made it.
CLOCKS_MAY_DIFFER = timedelta(seconds=10)
# Of callbacks that came before their push's answer, for one push.
MAX_RELEASED = 5

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
    # The payment that its token names, where that was not in the database when it came.
    orphan_of: uuid.UUID | None
    content_encoding: str


def lock_received(conn: Connection, callback_id: int) -> Callback | None:
    """The callback, locked; None when it was applied or another worker is at it."""
    cursor = conn.cursor(row_factory=class_row(Callback))
    cursor.execute(
        """
        SELECT id, transaction_id, by_token, body, host(source) AS source, received_at, requeued_by,
               traceparent, orphan_of,
               coalesce(headers ->> 'content-encoding', '') AS content_encoding
          FROM callbacks
         WHERE id = %(id)s AND state || '' = 'RECEIVED'
           FOR UPDATE SKIP LOCKED
        """,
        {"id": callback_id},
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
        """
        UPDATE callbacks
           SET state = %(state)s, outcome = %(outcome)s, applied_at = %(now)s,
               checkout_request_id = %(checkout_request_id)s,
               transaction_id = coalesce(transaction_id, %(transaction)s)
         WHERE id = %(callback_id)s
           AND state || '' = 'RECEIVED'
        """,
        {
            "state": state,
            "outcome": outcome,
            "now": now,
            "checkout_request_id": checkout_request_id,
            "transaction": transaction,
            "callback_id": callback_id,
        },
    )


def release_unmatched(
    conn: Connection, checkout_request_id: str, since: datetime, now: datetime
) -> list[int]:
    """Offer again what came before its push's answer; the callbacks' ids.

    What came before `since`, when the push began, is a guess. Of the rest a few are offered, the
    first ones: Safaricom sends one, and seldom repeats it.
    """
    cursor = conn.execute(
        """
        UPDATE callbacks
           SET state = 'RECEIVED', outcome = NULL, applied_at = NULL, next_attempt_at = %(now)s
         WHERE id IN (SELECT id
                        FROM callbacks
                       WHERE checkout_request_id = %(checkout_request_id)s
                         AND state = 'QUARANTINED' AND outcome = 'unmatched'
                         AND received_at >= %(since)s
                       ORDER BY received_at, id
                       LIMIT %(most)s
                         FOR UPDATE)
        RETURNING id
        """,
        {
            "checkout_request_id": checkout_request_id,
            "since": since - CLOCKS_MAY_DIFFER,
            "now": now,
            "most": MAX_RELEASED,
        },
    )
    return [row[0] for row in cursor]


def release_orphans(conn: Connection, now: datetime, limit: int) -> list[int]:
    """Offer again the orphans whose payments are in the database now; the callbacks' ids."""
    cursor = conn.execute(
        """
        UPDATE callbacks
           SET state = 'RECEIVED', outcome = NULL, applied_at = NULL, next_attempt_at = %(now)s
         WHERE id IN (SELECT c.id
                        FROM callbacks c
                        JOIN transactions t ON t.internal_transaction_id = c.orphan_of
                       WHERE c.orphan_of IS NOT NULL
                         AND c.state = 'QUARANTINED' AND c.outcome = 'orphan'
                       LIMIT %(limit)s
                         FOR UPDATE OF c SKIP LOCKED)
        RETURNING id
        """,
        {"now": now, "limit": limit},
    )
    return [row[0] for row in cursor]


@dataclass(frozen=True)
class Held:
    """A callback that waits for a query, and since when."""

    outcome: str
    body: bytes
    content_encoding: str
    applied_at: datetime

    @property
    def claims_payment(self) -> bool:
        """Whether it says that the money moved; else it reports a failure."""
        return self.outcome != "unconfirmed"


def find_held(conn: Connection, transaction: int) -> Held | None:
    """The callback that a query has to confirm. One that claims a payment comes first."""
    cursor = conn.cursor(row_factory=class_row(Held))
    cursor.execute(
        """
        SELECT outcome, body, coalesce(headers ->> 'content-encoding', '') AS content_encoding,
               applied_at
          FROM callbacks
         WHERE transaction_id = %(transaction)s AND (by_token OR NOT by_token) AND state = 'HELD'
         ORDER BY outcome = 'unconfirmed', id
         LIMIT 1
        """,
        {"transaction": transaction},
    )
    return cursor.fetchone()


def has_unapplied(conn: Connection, transaction: int) -> bool:
    """Whether a callback of the transaction is in the inbox and about to be applied."""
    cursor = conn.execute(
        """
        SELECT EXISTS (
            SELECT
              FROM callbacks
             WHERE transaction_id = %(transaction)s
               AND by_token
               AND state || '' = 'RECEIVED'
        )
        """,
        {"transaction": transaction},
    )
    row = cursor.fetchone()
    return bool(row and row[0])


def list_due(conn: Connection, before: datetime, limit: int) -> list[int]:
    """Callbacks whose time has come, oldest first."""
    cursor = conn.execute(
        """
        SELECT id
          FROM callbacks
         WHERE state = 'RECEIVED'
           AND next_attempt_at <= %(before)s
         ORDER BY next_attempt_at
         LIMIT %(limit)s
        """,
        {"before": before, "limit": limit},
    )
    return [row[0] for row in cursor]


def count_failure(
    conn: Connection, callback_id: int, *, retry_at: datetime, poison_after: int, now: datetime
) -> bool:
    """Applying raised an error: try later, or quarantine what failed too often (then True)."""
    cursor = conn.execute(
        """
        UPDATE callbacks
           SET attempts = attempts + 1, next_attempt_at = %(retry_at)s,
               state = CASE WHEN attempts + 1 >= %(most)s THEN 'QUARANTINED' ELSE state END,
               outcome = CASE WHEN attempts + 1 >= %(most)s THEN 'processing_failed' END,
               applied_at = CASE WHEN attempts + 1 >= %(most)s THEN %(now)s::timestamptz END
         WHERE id = %(id)s
           AND state || '' = 'RECEIVED'
        RETURNING state = 'QUARANTINED'
        """,
        {"id": callback_id, "retry_at": retry_at, "most": poison_after, "now": now},
    )
    row = cursor.fetchone()
    return bool(row and row[0])


def requeue(conn: Connection, callback_id: int, person: str, now: datetime) -> bool:
    """Offer a quarantined callback again, on a person's word. False when it is not there."""
    cursor = conn.execute(
        """
        UPDATE callbacks
           SET state = 'RECEIVED', outcome = NULL, applied_at = NULL, attempts = 0,
               next_attempt_at = %(now)s, requeued_by = %(person)s
         WHERE id = %(callback_id)s
           AND state = 'QUARANTINED'
        """,
        {"now": now, "person": person, "callback_id": callback_id},
    )
    return cursor.rowcount == 1


@dataclass(frozen=True)
class CallbackRow:
    """A row of the inbox, as a person sees it."""

    id: int
    transaction_id: uuid.UUID | None
    orphan_of: uuid.UUID | None
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
    "SELECT c.id, t.internal_transaction_id AS transaction_id, c.orphan_of, c.by_token,"
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


def list_orphans(conn: Connection, public_id: uuid.UUID) -> list[CallbackRow]:
    """Return the callbacks of a payment that was not in the database when they came."""
    cursor = conn.cursor(row_factory=class_row(CallbackRow))
    cursor.execute(f"{_VIEW} WHERE c.orphan_of = %s ORDER BY c.id DESC", [public_id])
    return cursor.fetchall()


def list_unadopted(conn: Connection, limit: int) -> list[CallbackRow]:
    """Return the orphans whose payments have not appeared, newest first."""
    cursor = conn.cursor(row_factory=class_row(CallbackRow))
    cursor.execute(
        f"{_VIEW} WHERE c.orphan_of IS NOT NULL AND c.outcome = 'orphan'"
        " ORDER BY c.id DESC LIMIT %(limit)s",
        {"limit": limit},
    )
    return cursor.fetchall()


def count_unadopted(conn: Connection) -> int:
    """Return how many orphans there are whose payments have not appeared."""
    row = conn.execute(
        """
        SELECT count(*)
          FROM callbacks
         WHERE orphan_of IS NOT NULL
           AND outcome = 'orphan'
        """
    ).fetchone()
    return row[0] if row else 0


def list_of_transaction(conn: Connection, transaction: int) -> list[CallbackRow]:
    """The callbacks of a transaction, newest first."""
    cursor = conn.cursor(row_factory=class_row(CallbackRow))
    cursor.execute(
        f"{_VIEW} WHERE c.transaction_id = %s AND (c.by_token OR NOT c.by_token)"
        " ORDER BY c.id DESC",
        [transaction],
    )
    return cursor.fetchall()


def find(conn: Connection, callback_id: int) -> tuple[CallbackRow, bytes] | None:
    """A callback and its raw body, or None. The body is empty once it was removed."""
    cursor = conn.cursor(row_factory=class_row(CallbackRow))
    row = cursor.execute(f"{_VIEW} WHERE c.id = %(id)s", {"id": callback_id}).fetchone()
    if row is None:
        return None
    body = conn.execute(
        "SELECT body FROM callbacks WHERE id = %(id)s", {"id": callback_id}
    ).fetchone()
    return row, (body[0] if body and body[0] is not None else b"")


@dataclass(frozen=True)
class Reveal:
    """An operator saw a callback with whole phone numbers."""

    callback_id: int
    by: str
    at: datetime


def record_reveal(conn: Connection, callback_id: int, person: str, now: datetime) -> None:
    """Store who sees a callback unmasked."""
    conn.execute(
        """
        INSERT INTO callback_reveals (callback_id, revealed_by, at)
        VALUES (%(id)s, %(by)s, %(now)s)
        """,
        {"id": callback_id, "by": person, "now": now},
    )


def list_reveals(conn: Connection, callback_ids: Sequence[int]) -> list[Reveal]:
    """Who saw these callbacks unmasked, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Reveal))
    cursor.execute(
        """
        SELECT callback_id, revealed_by AS by, at
          FROM callback_reveals
         WHERE callback_id = ANY(%(ids)s)
         ORDER BY id
        """,
        {"ids": list(callback_ids)},
    )
    return cursor.fetchall()

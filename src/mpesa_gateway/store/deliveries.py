"""Tables `deliveries` and `webhook_attempts`: the outbox, and every try of it.

What names a row by its id hides its state from the planner: docs/decisions/0013.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row

from mpesa_gateway.domain.delivery import Attempt, AttemptOutcome, NextTry
from mpesa_gateway.store.pool import Connection


@dataclass(frozen=True, kw_only=True)
class NewDelivery:
    """A webhook to write down in the transaction that ends the payment."""

    webhook_id: str
    transaction: int
    merchant: str
    type: str
    url: str
    origin: str
    body: bytes
    conflict: int | None = None
    traceparent: str | None = None


def insert(conn: Connection, delivery: NewDelivery, now: datetime) -> int:
    """The new delivery's id. A second delivery of the same end breaks a constraint."""
    cursor = conn.execute(
        """
        INSERT INTO deliveries (webhook_id, transaction_id, conflict_id, merchant, type, url,
            origin, body, next_attempt_at, created_at, traceparent)
        VALUES (%(webhook_id)s, %(transaction)s, %(conflict)s, %(merchant)s, %(type)s, %(url)s,
            %(origin)s, %(body)s, %(now)s, %(now)s, %(traceparent)s)
        RETURNING id
        """,
        {**asdict(delivery), "now": now},
    )
    row = cursor.fetchone()
    assert row is not None
    inserted: int = row[0]
    return inserted


@dataclass(frozen=True)
class Delivery:
    """A row of the outbox, as an attempt needs it."""

    id: int
    webhook_id: str
    transaction_id: int
    merchant: str
    url: str
    origin: str
    body: bytes
    attempts_made: int
    failures: int
    claim: int
    lease_until: datetime | None
    created_at: datetime
    # It could not be tried as soon as it was written: its endpoint, or an earlier webhook of the
    # same transaction, was in the way.
    held_back: bool
    # What the merchant calls it; for logs and traces.
    public_id: uuid.UUID
    traceparent: str | None
    # What is held against its endpoint.
    endpoint_fails: bool
    parked_until: datetime | None


# A later webhook of a transaction waits for the earlier one, so that it never overtakes it.
IN_TURN: LiteralString = """NOT EXISTS (
    SELECT FROM deliveries e
     WHERE e.transaction_id = d.transaction_id AND e.id < d.id AND e.state || '' = 'PENDING'
)"""
_DUE: LiteralString = f"""
    SELECT d.id, d.webhook_id, d.transaction_id, d.merchant, d.url, d.origin, d.body,
           d.attempts_made, d.failures, d.claim, d.lease_until, d.created_at, d.traceparent,
           d.next_attempt_at > d.created_at OR EXISTS (
               SELECT FROM deliveries e
                WHERE e.transaction_id = d.transaction_id AND e.id < d.id
                  AND e.finished_at > d.created_at
           ) AS held_back,
           t.internal_transaction_id AS public_id, f.merchant IS NOT NULL AS endpoint_fails,
           f.parked_until
      FROM deliveries d
      JOIN transactions t ON t.id = d.transaction_id
      LEFT JOIN failing_endpoints f ON f.merchant = d.merchant AND f.origin = d.origin
     WHERE d.id = %(id)s
       AND d.state || '' = 'PENDING'
       AND coalesce(d.next_attempt_at, 'infinity') <= %(now)s
       AND (d.lease_until IS NULL OR d.lease_until <= %(now)s)
       AND {IN_TURN}
"""  # noqa: S608 - a constant


def find_due(conn: Connection, delivery_id: int, now: datetime) -> Delivery | None:
    """The delivery; None when it is not due or another worker has it."""
    cursor = conn.cursor(row_factory=class_row(Delivery))
    cursor.execute(_DUE, {"id": delivery_id, "now": now})
    return cursor.fetchone()


def lock_due(conn: Connection, delivery_id: int, now: datetime) -> Delivery | None:
    """The same, locked."""
    cursor = conn.cursor(row_factory=class_row(Delivery))
    cursor.execute(f"{_DUE} FOR UPDATE OF d SKIP LOCKED", {"id": delivery_id, "now": now})
    return cursor.fetchone()


@dataclass(frozen=True)
class Started:
    """A try that may be made: the number of its claim and its own, and the failures before it."""

    claim: int
    number: int
    failures: int


def start_found(
    conn: Connection, delivery: Delivery, *, lease_until: datetime, now: datetime
) -> Started | None:
    """Claim what `find_due` found free, and write the attempt's row, in one statement.

    None when anybody was at it since.
    """
    cursor = conn.cursor(row_factory=class_row(Started))
    cursor.execute(
        """
        WITH claimed AS (
            UPDATE deliveries
               SET claim = claim + 1, lease_until = %(lease_until)s,
                   attempts_made = attempts_made + 1, waits_for_endpoint = FALSE
             WHERE id = (
                 SELECT id
                   FROM deliveries d
                  WHERE id = %(id)s
                    AND claim = %(claim)s
                    AND state || '' = 'PENDING'
                    AND coalesce(next_attempt_at, 'infinity') <= %(now)s
                    AND lease_until IS NULL
                    AND NOT EXISTS (
                        SELECT
                          FROM deliveries e
                         WHERE e.transaction_id = d.transaction_id
                           AND e.id < d.id
                           AND e.state || '' = 'PENDING'
                    )
                    FOR UPDATE SKIP LOCKED
             )
            RETURNING id, transaction_id, claim, attempts_made, failures
        )
        INSERT INTO webhook_attempts (transaction_id, delivery_id, attempt_number, attempted_at)
        SELECT transaction_id, id, attempts_made, %(now)s
          FROM claimed
        RETURNING (SELECT claim FROM claimed), attempt_number AS number,
            (SELECT failures FROM claimed)
        """,
        {"lease_until": lease_until, "id": delivery.id, "claim": delivery.claim, "now": now},
    )
    return cursor.fetchone()


def start_attempt(
    conn: Connection, delivery: Delivery, *, failures: int, lease_until: datetime, now: datetime
) -> int:
    """Claim the delivery and write the attempt's row, before anything leaves; the claim number."""
    cursor = conn.execute(
        """
        WITH claimed AS (
            UPDATE deliveries
               SET claim = claim + 1, lease_until = %(lease_until)s,
                   attempts_made = attempts_made + 1, failures = %(failures)s,
                   waits_for_endpoint = FALSE
             WHERE id = %(id)s
            RETURNING id, transaction_id, attempts_made, claim
        )
        INSERT INTO webhook_attempts (transaction_id, delivery_id, attempt_number, attempted_at)
        SELECT transaction_id, id, attempts_made, %(now)s
          FROM claimed
        RETURNING (SELECT claim FROM claimed)
        """,
        {"lease_until": lease_until, "failures": failures, "id": delivery.id, "now": now},
    )
    row = cursor.fetchone()
    assert row is not None
    claim: int = row[0]
    return claim


def save_unknown(conn: Connection, delivery_id: int) -> bool:
    """A worker died in the middle of a try: say so. False when there was no open try."""
    cursor = conn.execute(
        """
        UPDATE webhook_attempts
           SET outcome = %(unknown)s,
               error_message = 'The worker stopped before the outcome was known;'
                            ' the endpoint may have seen it.'
         WHERE delivery_id = %(delivery_id)s
           AND outcome = 'started'
        """,
        {"unknown": AttemptOutcome.UNKNOWN, "delivery_id": delivery_id},
    )
    return cursor.rowcount > 0


def finish_claim(
    conn: Connection,
    delivery_id: int,
    claim: int,
    following: NextTry,
    *,
    failures: int,
    now: datetime,
) -> bool:
    """Store what comes next and give the lease back. False when the claim is no longer ours."""
    cursor = conn.execute(
        """
        UPDATE deliveries
           SET state = %(state)s, next_attempt_at = %(next_attempt_at)s,
               failures = %(failures)s, lease_until = NULL, waits_for_endpoint = FALSE,
               finished_at = CASE WHEN %(state)s <> 'PENDING' THEN %(now)s::timestamptz END
         WHERE id = %(delivery_id)s
           AND claim = %(claim)s
           AND state || '' = 'PENDING'
        """,
        {
            "state": following.state,
            "next_attempt_at": following.next_attempt_at,
            "failures": failures,
            "now": now,
            "delivery_id": delivery_id,
            "claim": claim,
        },
    )
    return cursor.rowcount == 1


@dataclass(frozen=True)
class Finished:
    """A try whose end is stored. `successor` is the next webhook of the same transaction."""

    successor: int | None


def finish_attempt(
    conn: Connection,
    delivery_id: int,
    started: Started,
    attempt: Attempt,
    following: NextTry,
    *,
    failures: int,
    now: datetime,
) -> Finished | None:
    """How a try ended and what comes next, in one statement. None when the claim is not ours."""
    cursor = conn.cursor(row_factory=class_row(Finished))
    cursor.execute(
        """
        WITH finished AS (
            UPDATE deliveries
               SET state = %(state)s, next_attempt_at = %(next)s, failures = %(failures)s,
                   lease_until = NULL, waits_for_endpoint = FALSE,
                   finished_at = CASE WHEN %(state)s <> 'PENDING'
                                      THEN %(now)s::timestamptz END
             WHERE id = %(id)s
               AND claim = %(claim)s
               AND state || '' = 'PENDING'
            RETURNING id, transaction_id
        ), attempt AS (
            UPDATE webhook_attempts
               SET outcome = %(outcome)s, success = %(success)s,
                   response_status_code = %(status)s, response_time_ms = %(ms)s,
                   error_message = %(error)s, response_body = %(answered)s
             WHERE delivery_id = (SELECT id FROM finished)
               AND attempt_number = %(number)s
               AND outcome = 'started'
        )
        SELECT (
            SELECT min(d.id)
              FROM deliveries d
             WHERE d.transaction_id = f.transaction_id
               AND d.state || '' = 'PENDING'
               AND d.id <> f.id
        ) AS successor
          FROM finished f
        """,
        {
            "state": following.state,
            "next": following.next_attempt_at,
            "failures": failures,
            "now": now,
            "id": delivery_id,
            "claim": started.claim,
            "outcome": attempt.outcome,
            "success": attempt.success,
            "status": attempt.response_status_code,
            "ms": attempt.response_time_ms,
            "error": attempt.error_message,
            "answered": attempt.response_body,
            "number": started.number,
        },
    )
    return cursor.fetchone()


def postpone(
    conn: Connection, delivery_id: int, until: datetime, *, waits_for_endpoint: bool
) -> None:
    """Wait without using up a try."""
    conn.execute(
        """
        UPDATE deliveries
           SET next_attempt_at = %(until)s, lease_until = NULL,
               waits_for_endpoint = %(waits_for_endpoint)s
         WHERE id = %(delivery_id)s
           AND state || '' = 'PENDING'
        """,
        {"until": until, "waits_for_endpoint": waits_for_endpoint, "delivery_id": delivery_id},
    )


def wake_waiting(
    conn: Connection, merchant: str, origin: str, now: datetime, limit: int
) -> list[int]:
    """The endpoint answers again: offer what waited for it."""
    cursor = conn.execute(
        """
        UPDATE deliveries
           SET next_attempt_at = %(now)s, waits_for_endpoint = FALSE
         WHERE id IN (
             SELECT id
               FROM deliveries
              WHERE merchant = %(merchant)s
                AND origin = %(origin)s
                AND waits_for_endpoint
              ORDER BY id
              LIMIT %(limit)s
                FOR UPDATE SKIP LOCKED
         )
        RETURNING id
        """,
        {"now": now, "merchant": merchant, "origin": origin, "limit": limit},
    )
    return sorted(row[0] for row in cursor)


@dataclass(frozen=True)
class DueDelivery:
    """A delivery to offer: `fresh` when no try was made yet, and its endpoint kept nobody from it.

    So only a wake-up that was lost, or threads that are all busy, can have left it here.
    """

    id: int
    fresh: bool


def list_due(
    conn: Connection, now: datetime, *, fresh_before: datetime, limit: int
) -> list[DueDelivery]:
    """Deliveries whose time has come, whose turn it is and that nobody holds, oldest first.

    A fresh one has a wake-up on its way, so it is listed only once it is older than that.
    """
    cursor = conn.cursor(row_factory=class_row(DueDelivery))
    cursor.execute(
        """
        SELECT id, attempts_made = 0 AND next_attempt_at = created_at AND NOT EXISTS (
            SELECT
              FROM failing_endpoints f
             WHERE f.merchant = d.merchant
               AND f.origin = d.origin
        ) AS fresh
          FROM deliveries d
         WHERE state = 'PENDING'
           AND next_attempt_at <= %(now)s
           AND (attempts_made > 0 OR next_attempt_at <= %(fresh_before)s)
           AND (lease_until IS NULL OR lease_until <= %(now)s)
           AND NOT EXISTS (
               SELECT
                 FROM deliveries e
                WHERE e.transaction_id = d.transaction_id
                  AND e.id < d.id
                  AND e.state || '' = 'PENDING'
           )
         ORDER BY next_attempt_at
         LIMIT %(limit)s
        """,
        {"now": now, "fresh_before": fresh_before, "limit": limit},
    )
    return cursor.fetchall()

"""Tables `deliveries` and `webhook_attempts`, as merchants and people on call read them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row

from mpesa_gateway.store.pool import Connection


@dataclass(frozen=True)
class DeliveryRow:
    """A delivery as merchants and people on call see it."""

    id: int
    webhook_id: str
    transaction: int
    transaction_id: uuid.UUID
    merchant: str
    type: str
    url: str
    state: str
    attempts_made: int
    next_attempt_at: datetime | None
    parked: bool
    created_at: datetime
    finished_at: datetime | None


_ROWS: LiteralString = (
    "SELECT d.id, d.webhook_id, d.transaction_id AS transaction,"
    " t.internal_transaction_id AS transaction_id, d.merchant, d.type, d.url, d.state,"
    " d.attempts_made, d.next_attempt_at, d.waits_for_endpoint AS parked, d.created_at,"
    " d.finished_at"
    " FROM deliveries d JOIN transactions t ON t.id = d.transaction_id"
)


def list_of_transaction(conn: Connection, transaction: int) -> list[DeliveryRow]:
    """The deliveries of a transaction, oldest first."""
    cursor = conn.cursor(row_factory=class_row(DeliveryRow))
    cursor.execute(
        _ROWS + " WHERE d.transaction_id = %s ORDER BY d.id",
        [transaction],
    )
    return cursor.fetchall()


def list_newest(
    conn: Connection,
    *,
    state: str | None,
    merchant: str | None,
    before: datetime | None = None,
    limit: int,
) -> list[DeliveryRow]:
    """Deliveries written before then, newest first; None means any."""
    cursor = conn.cursor(row_factory=class_row(DeliveryRow))
    cursor.execute(
        _ROWS + " WHERE (%(state)s::text IS NULL OR d.state = %(state)s)"
        " AND (%(merchant)s::text IS NULL OR d.merchant = %(merchant)s)"
        " AND (%(before)s::timestamptz IS NULL OR d.created_at < %(before)s)"
        " ORDER BY d.id DESC LIMIT %(limit)s",
        {"state": state, "merchant": merchant, "before": before, "limit": limit},
    )
    return cursor.fetchall()


@dataclass(frozen=True)
class AttemptRow:
    """A row of `webhook_attempts`."""

    delivery_id: int
    attempt_number: int
    outcome: str
    success: bool
    response_status_code: int | None
    response_time_ms: int | None
    error_message: str | None
    response_body: str | None
    attempted_at: datetime


def list_attempts(conn: Connection, transaction: int) -> list[AttemptRow]:
    """Every try of a transaction's deliveries, oldest first."""
    cursor = conn.cursor(row_factory=class_row(AttemptRow))
    cursor.execute(
        """
        SELECT delivery_id, attempt_number, outcome, success, response_status_code,
               response_time_ms, error_message, response_body, attempted_at
          FROM webhook_attempts
         WHERE transaction_id = %(transaction)s
         ORDER BY delivery_id, attempt_number
        """,
        {"transaction": transaction},
    )
    return cursor.fetchall()


def list_bodies(conn: Connection, transaction: int) -> dict[int, bytes]:
    """The frozen bytes of a transaction's webhooks, by the delivery's number."""
    cursor = conn.execute(
        """
        SELECT id, body
          FROM deliveries
         WHERE transaction_id = %(transaction)s
        """,
        {"transaction": transaction},
    )
    return {int(row[0]): bytes(row[1]) for row in cursor.fetchall()}

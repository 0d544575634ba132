"""What the database holds of the payments of an M-PESA statement."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from psycopg.rows import class_row

from mpesa_gateway.store.pool import Connection

# A customer has about a minute for the PIN. Safaricom's clock and ours may differ.
PUSHED_BEFORE = timedelta(minutes=15)
CLOCKS_MAY_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True)
class KnownReceipt:
    """A receipt that a payment has, or a conflict of that payment (then `amount` is None)."""

    receipt: str
    payment: uuid.UUID
    amount: Decimal | None


def list_known(conn: Connection, receipts: Sequence[str]) -> list[KnownReceipt]:
    """Return those of the receipts that payments or their conflicts have."""
    cursor = conn.cursor(row_factory=class_row(KnownReceipt))
    cursor.execute(
        """
        SELECT t.receipt, t.internal_transaction_id AS payment, t.amount
          FROM unnest(%(receipts)s::text[]) AS asked (receipt)
          JOIN transactions t ON t.receipt = asked.receipt
         UNION ALL
        SELECT c.receipt, t.internal_transaction_id, NULL
          FROM conflicts c
          JOIN transactions t ON t.id = c.transaction_id
         WHERE c.receipt = ANY(%(receipts)s)
        """,
        {"receipts": list(receipts)},
    )
    return cursor.fetchall()


@dataclass(frozen=True)
class StoredBody:
    """A callback that is stored and was not applied."""

    id: int
    payment: uuid.UUID | None
    outcome: str | None
    body: bytes
    content_encoding: str


def list_unapplied(conn: Connection) -> Iterator[StoredBody]:
    """Yield the callbacks that were not applied: orphans, quarantined ones, pending ones."""
    cursor = conn.cursor(row_factory=class_row(StoredBody))
    yield from cursor.execute(
        """
        SELECT c.id, coalesce(c.orphan_of, t.internal_transaction_id) AS payment, c.outcome, c.body,
               coalesce(c.headers ->> 'content-encoding', '') AS content_encoding
          FROM callbacks c
          LEFT JOIN transactions t ON t.id = c.transaction_id
         WHERE c.state IN ('RECEIVED', 'QUARANTINED')
         ORDER BY c.id
        """
    )


@dataclass(frozen=True)
class Candidate:
    """A payment without a receipt that a payment of the statement may be."""

    payment: uuid.UUID
    status: str


def list_candidates(
    conn: Connection, amount: Decimal, phone_like: str, completed_at: datetime
) -> list[Candidate]:
    """Return the payments without a receipt, of their own or of a conflict, that it may be.

    `phone_like` is a pattern of LIKE. A push that never left was not paid for.
    """
    cursor = conn.cursor(row_factory=class_row(Candidate))
    cursor.execute(
        """
        SELECT internal_transaction_id AS payment, status
          FROM transactions t
         WHERE receipt IS NULL
           AND push_state NOT IN ('INTENT', 'NOT_SENT', 'REFUSED')
           AND amount = %(amount)s
           AND phone LIKE %(phone_like)s
           AND created_at BETWEEN %(after)s AND %(before)s
           AND NOT EXISTS (
                   SELECT FROM conflicts
                    WHERE transaction_id = t.id AND receipt IS NOT NULL)
         ORDER BY id
        """,
        {
            "amount": amount,
            "phone_like": phone_like,
            "after": completed_at - PUSHED_BEFORE,
            "before": completed_at + CLOCKS_MAY_DIFFER,
        },
    )
    return cursor.fetchall()

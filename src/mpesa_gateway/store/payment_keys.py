"""Table `payment_keys`: what stays of payments whose rows were removed with their month."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from psycopg.rows import class_row

from mpesa_gateway.store.pool import Connection

# No row has this number.
REMOVED = 0


@dataclass(frozen=True)
class PaymentKey:
    """A payment's key, its receipt, and what POST /initiate answers to the key."""

    id: uuid.UUID
    merchant: str
    request_sha256: bytes
    response_status: int | None
    response_body: str | None
    status: str
    amount: Decimal
    receipt: str | None
    finished_at: datetime


_COLUMNS = (
    "internal_transaction_id AS id, merchant, request_sha256, response_status, response_body,"
    " status, amount, receipt, finished_at"
)


def find(conn: Connection, merchant: str, key: uuid.UUID) -> PaymentKey | None:
    """Return what stays of the payment that the idempotency key made."""
    cursor = conn.cursor(row_factory=class_row(PaymentKey))
    cursor.execute(
        f"""
        SELECT {_COLUMNS}
          FROM payment_keys
         WHERE merchant = %(merchant)s AND idempotency_key = %(key)s
        """,  # noqa: S608 - a constant
        {"merchant": merchant, "key": key},
    )
    return cursor.fetchone()


def find_by_name(conn: Connection, receipt: str, public_id: uuid.UUID | None) -> PaymentKey | None:
    """Return what stays of the payment with that receipt, or that public id."""
    cursor = conn.cursor(row_factory=class_row(PaymentKey))
    cursor.execute(
        f"""
        SELECT {_COLUMNS}
          FROM payment_keys
         WHERE receipt = %(receipt)s
         UNION ALL
        SELECT {_COLUMNS}
          FROM payment_keys
         WHERE internal_transaction_id = %(public_id)s
        """,  # noqa: S608 - a constant
        {"receipt": receipt, "public_id": public_id},
    )
    return cursor.fetchone()


def find_receipt_owner(conn: Connection, receipt: str) -> int | None:
    """Return the row that a receipt belongs to; REMOVED when that payment's rows were removed."""
    found = conn.execute(
        """
        SELECT id
          FROM transactions
         WHERE receipt = %(receipt)s
         UNION ALL
        SELECT %(removed)s
          FROM payment_keys
         WHERE receipt = %(receipt)s
        """,
        {"receipt": receipt, "removed": REMOVED},
    ).fetchone()
    return found[0] if found else None


def move(conn: Connection, *, ledger: str, to_ledger: str) -> int:
    """Move the keys of one ledger into another; how many.

    A key that stands in both stays where it is: a key means one payment.
    """
    cursor = conn.execute(
        """
        UPDATE payment_keys AS k
           SET merchant = %(to_ledger)s
         WHERE merchant = %(ledger)s
           AND NOT EXISTS (SELECT FROM payment_keys AS other
                            WHERE other.merchant = %(to_ledger)s
                              AND (other.idempotency_key = k.idempotency_key
                                   OR other.order_id = k.order_id
                                  AND other.status <> 'FAILED'
                                  AND k.status <> 'FAILED'))
           AND NOT EXISTS (SELECT FROM transactions AS other
                            WHERE other.merchant = %(to_ledger)s
                              AND other.idempotency_key = k.idempotency_key)
        """,
        {"ledger": ledger, "to_ledger": to_ledger},
    )
    return cursor.rowcount

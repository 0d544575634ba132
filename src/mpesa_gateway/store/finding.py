"""Find a payment by whatever identifier an operator has in hand."""

from __future__ import annotations

import uuid

from mpesa_gateway.store.pool import Connection

# The end of an id has no index: only this many of the newest payments are looked through.
RECENT = 1_000_000


def find_by_public_id(conn: Connection, public_id: uuid.UUID) -> list[uuid.UUID]:
    """The payment of that id, or those of any merchant with that idempotency key."""
    # Merchants are few, so they are walked along the index (merchant, idempotency_key) one by one:
    # a condition on the key alone would read all of it.
    cursor = conn.execute(
        """
        WITH RECURSIVE merchants AS (
            (SELECT merchant FROM transactions ORDER BY merchant LIMIT 1)
            UNION ALL
            SELECT (SELECT t.merchant FROM transactions t
                     WHERE t.merchant > m.merchant ORDER BY t.merchant LIMIT 1)
              FROM merchants m
             WHERE m.merchant IS NOT NULL
        )
        SELECT internal_transaction_id FROM transactions
         WHERE internal_transaction_id = %(id)s
        UNION
        SELECT t.internal_transaction_id
          FROM merchants m
          JOIN LATERAL (SELECT internal_transaction_id FROM transactions
                         WHERE merchant = m.merchant AND idempotency_key = %(id)s
                        OFFSET 0) t ON true
        """,
        {"id": public_id},
    )
    return [row[0] for row in cursor]


def find_by_text(conn: Connection, text: str) -> list[uuid.UUID]:
    """The payments with that receipt, also one of a conflict, or that CheckoutRequestID."""
    cursor = conn.execute(
        """
        SELECT internal_transaction_id FROM transactions WHERE receipt = %(text)s
        UNION
        SELECT internal_transaction_id FROM transactions WHERE checkout_request_id = %(text)s
        UNION
        SELECT t.internal_transaction_id
          FROM conflicts c
          JOIN transactions t ON t.id = c.transaction_id
         WHERE c.receipt = %(text)s
        """,
        {"text": text},
    )
    return [row[0] for row in cursor]


def find_by_suffix(conn: Connection, suffix: str) -> list[uuid.UUID]:
    """The newest payments whose id ends so, two at most."""
    cursor = conn.execute(
        """
        WITH recent AS (
            SELECT internal_transaction_id FROM transactions ORDER BY id DESC LIMIT %(recent)s
        )
        SELECT internal_transaction_id FROM recent
         WHERE right(internal_transaction_id::text, length(%(suffix)s)) = %(suffix)s
         LIMIT 2
        """,
        {"suffix": suffix, "recent": RECENT},
    )
    return [row[0] for row in cursor]

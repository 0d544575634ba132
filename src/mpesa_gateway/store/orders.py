"""Which payment keeps an order shut. The wall is the index `transactions_open_order`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import errors

from mpesa_gateway.domain.order import Attempt
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.store.pool import Connection

_WALLS = ("transactions_open_order", "payment_keys_paid_order")


class OrderTakenError(Exception):
    """Another payment of the order was committed first."""


def find_attempt(conn: Connection, merchant: str, order_id: str) -> Attempt | None:
    """Return the payment that has paid the order or may still, None when a new one may begin.

    A FAILED one counts while a conflict of it is open: Safaricom says that money was taken.
    """
    found = conn.execute(
        """
        SELECT internal_transaction_id, status, receipt, prompt_until
          FROM transactions
         WHERE merchant = %(merchant)s
           AND order_id = %(order_id)s
           AND status <> 'FAILED'
         UNION ALL
        SELECT internal_transaction_id, status, receipt, NULL
          FROM payment_keys
         WHERE merchant = %(merchant)s
           AND order_id = %(order_id)s
           AND status = 'COMPLETED'
         UNION ALL
        SELECT t.internal_transaction_id, t.status, t.receipt, NULL
          FROM transactions t
          JOIN conflicts c ON c.transaction_id = t.id AND c.closed_at IS NULL
         WHERE t.merchant = %(merchant)s
           AND t.order_id = %(order_id)s
           AND t.status = 'FAILED'
         LIMIT 1
        """,
        {"merchant": merchant, "order_id": order_id},
    ).fetchone()
    return None if found is None else Attempt(found[0], Status(found[1]), found[2], found[3])


@contextmanager
def one_attempt() -> Iterator[None]:
    """Raises OrderTakenError where what is inserted inside meets the wall of orders."""
    try:
        yield
    except errors.UniqueViolation as error:
        if error.diag.constraint_name in _WALLS:
            raise OrderTakenError from error
        raise

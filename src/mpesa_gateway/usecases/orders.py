"""One order is paid once, however many idempotency keys ask for it (docs/decisions/0032)."""

from __future__ import annotations

from datetime import datetime
from typing import NoReturn

from mpesa_gateway.domain.order import refuse_second
from mpesa_gateway.domain.transaction import PaymentRequest
from mpesa_gateway.errors import OrderOpenError
from mpesa_gateway.store import orders
from mpesa_gateway.store.pool import Connection, Pool


def refuse_taken(conn: Connection, merchant: str, request: PaymentRequest, now: datetime) -> None:
    """Refuse what would pay an order twice. Raises OrderPaidError, OrderOpenError.

    What is committed at the same moment is not seen here: the database's own wall refuses that.
    """
    if request.order_id is not None:
        refuse_second(orders.find_attempt(conn, merchant, request.order_id), now)


def refuse_overtaken(pool: Pool, merchant: str, request: PaymentRequest, now: datetime) -> NoReturn:
    """Say why an order met the wall. Raises OrderPaidError, OrderOpenError."""
    with pool.connection("initiate.order") as conn:
        refuse_taken(conn, merchant, request, now)
    raise OrderOpenError("another attempt of the order has just ended; ask again", retry_after_s=1)

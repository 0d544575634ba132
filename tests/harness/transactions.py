"""Payments that have ended, and raw requests about them."""

from __future__ import annotations

from harness.gateway import Gateway
from harness.settings import API_KEY
from harness.waiting import wait_for
from harness.wire import Reply, exchange, request_bytes

KEY_HEADER = f"X-Internal-Secret: {API_KEY}"


def ended(gateway: Gateway, phone: str) -> str:
    """A payment whose callback came and was applied, and whose webhook was tried."""
    transaction_id = gateway.pay(phone)
    wait_for(
        lambda: gateway.rows(
            "SELECT FROM callbacks c JOIN transactions t ON t.id = c.transaction_id"
            " WHERE t.internal_transaction_id = %s",
            transaction_id,
        ),
        what="the callback",
    )
    gateway.work()
    return transaction_id


def raw_list(gateway: Gateway, query: str) -> Reply:
    return exchange(gateway.url, request_bytes("GET", f"/transactions?{query}", KEY_HEADER))

"""Payments that have ended, and raw requests about them."""

from __future__ import annotations

from harness.callbacks import applied
from harness.gateway import Gateway
from harness.settings import API_KEY
from harness.wire import Reply, exchange, request_bytes

KEY_HEADER = f"X-Internal-Secret: {API_KEY}"


def ended(gateway: Gateway, phone: str) -> str:
    """A payment whose callback came and was applied, and whose webhook was tried."""
    transaction_id = gateway.pay(phone)
    applied(gateway, transaction_id)
    return transaction_id


def raw_list(gateway: Gateway, query: str) -> Reply:
    return exchange(gateway.url, request_bytes("GET", f"/transactions?{query}", KEY_HEADER))

"""Callbacks of payments, posted by hand, and what the gateway kept of them."""

from __future__ import annotations

from typing import Any

import requests

from harness.gateway import Gateway
from harness.waiting import wait_for

MIB = 1024 * 1024
ACCEPTED = '{"ResultCode": 0, "ResultDesc": "Accepted"}'


def token_of(gateway: Gateway, phone: str) -> str:
    """What the URL carries that Safaricom was given for the push to that phone."""
    (push,) = gateway.simulator.ledger(phone=phone)["pushes"]
    url: str = push["callback_url"]
    return url.rpartition("/")[2]


def paid_silently(gateway: Gateway, phone: str, **fields: Any) -> tuple[str, str]:
    """A payment that Safaricom does not call back about: its id and its callback's path."""
    transaction_id = gateway.pay(phone, **fields)
    return transaction_id, f"/callback/{token_of(gateway, phone)}"


def post(
    gateway: Gateway, path: str, body: Any = b"{}", *, source: str | None = None, **headers: str
) -> requests.Response:
    """Without a session, so that threads may use it. `source` as a trusted proxy says it."""
    if source is not None:
        headers["X-Forwarded-For"] = source
    return requests.post(gateway.url + path, data=body, headers=headers, timeout=30)


def assert_accepted(response: requests.Response) -> None:
    assert response.status_code == 200, response.text
    assert response.text == ACCEPTED
    assert response.headers["Content-Type"] == "application/json"


def applied(gateway: Gateway, transaction_id: str) -> None:
    """Wait for a payment's callback, and apply it: its row is seen a moment before its wake-up."""

    def look() -> list[dict[str, Any]]:
        gateway.work()
        return [row for row in kept(gateway, transaction_id) if row["state"] != "RECEIVED"]

    wait_for(look, what="the callback")


def kept(gateway: Gateway, transaction_id: str) -> list[dict[str, Any]]:
    return gateway.rows(
        "SELECT c.* FROM callbacks c JOIN transactions t ON t.id = c.transaction_id"
        " WHERE t.internal_transaction_id = %s ORDER BY c.id",
        transaction_id,
    )


def count_kept(gateway: Gateway) -> int:
    count: int = gateway.rows("SELECT coalesce(sum(copies), 0) AS n FROM callbacks")[0]["n"]
    return count

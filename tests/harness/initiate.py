"""Requests to /initiate, good and bad, and what came of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from harness.gateway import Gateway
from harness.merchants import write_merchant
from harness.settings import API_KEY

HOOK = "https://merchant.example.com/hook"
LIMITED_KEY = "key-of-the-merchant-with-limits"
HOSTS_KEY = "key-of-the-merchant-with-hosts"
RICH_KEY = "key-of-the-merchant-with-large-amounts"
# Accepted, and never called back about: nothing happens while a test looks.
SILENT = "4042"


def write_merchants(directory: Path) -> None:
    """Merchants with limits, with hosts, and with large amounts."""
    write_merchant(
        directory,
        "limits.json",
        name="shops/limits",
        key=LIMITED_KEY,
        limits={"minAmount": 5, "maxAmount": 70},
    )
    write_merchant(
        directory,
        "hosts.json",
        name="shops/hosts",
        key=HOSTS_KEY,
        webhook={
            "url": "https://hooks.example.com/mine",
            "allowedHosts": ["other.example.com"],
            "secrets": ["a-webhook-secret"],
        },
    )
    write_merchant(
        directory, "rich.json", name="shops/rich", key=RICH_KEY, limits={"maxAmount": 300_000}
    )


def good(phone: str = "254712340000", **fields: Any) -> dict[str, Any]:
    """A good body; a field that is `...` is left out."""
    body = {
        "amount": "10",
        "phone": phone,
        "webhook_url": HOOK,
        "idempotency_key": str(uuid.uuid4()),
        **fields,
    }
    return {name: value for name, value in body.items() if value is not ...}


def post(gateway: Gateway, data: Any, *, key: str = API_KEY, **headers: str) -> requests.Response:
    """Bytes, an iterator of bytes (sent in chunks), or something to write as JSON."""
    content = json.dumps(data).encode() if isinstance(data, dict | list) else data
    return gateway.session.post(
        f"{gateway.url}/initiate",
        data=content,
        headers={"X-Internal-Secret": key, "Content-Type": "application/json", **headers},
        timeout=30,
    )


def written(gateway: Gateway) -> list[int]:
    """How much there is of everything that /initiate could make."""
    (counts,) = gateway.rows(
        "SELECT (SELECT count(*) FROM transactions) AS transactions,"
        " (SELECT count(*) FROM transaction_events) AS events,"
        " (SELECT count(*) FROM deliveries) AS deliveries,"
        " (SELECT count(*) FROM callbacks) AS callbacks"
    )
    ledger = gateway.simulator.ledger()
    return [*counts.values(), len(ledger["pushes"]), len(ledger["tokens"])]


@contextmanager
def nothing_created(gateway: Gateway) -> Iterator[None]:
    before = written(gateway)
    yield
    assert written(gateway) == before


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def assert_pending(gateway: Gateway, response: requests.Response, push: str) -> dict[str, Any]:
    """Accepted or unknown, for the caller the same; nobody is told of an end."""
    assert response.status_code == 201, response.text
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert body == {"transaction_id": body["transaction_id"], "status": "PENDING"}
    assert uuid.UUID(body["transaction_id"]).version == 7
    view = gateway.transaction(body["transaction_id"])
    assert (view["status"], view["push"]) == ("PENDING", push)
    gateway.work()
    assert gateway.get(f"/transactions/{view['transaction_id']}/deliveries").json()["items"] == []
    return view


def assert_failed(gateway: Gateway, document: dict[str, Any], reason: str) -> dict[str, Any]:
    """The transaction is FAILED for that reason, and one webhook will say so."""
    assert document["transaction_status"] == "FAILED"
    assert document["reason"] == reason
    view = gateway.transaction(document["transaction_id"])
    assert (view["status"], view["settled_by"]) == ("FAILED", "push")
    assert view["failure"]["reason"] == reason
    assert view["checkout_request_id"] is None
    gateway.work()
    (webhook,) = gateway.receiver.of(document["transaction_id"])
    told = webhook.verify(API_KEY)
    assert told["type"] == "transaction.failed"
    assert told["failure"]["reason"] == reason
    return view

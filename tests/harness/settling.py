"""Callbacks for a payment that the simulator is silent about, and what they did."""

from __future__ import annotations

import json

from harness.gateway import Gateway

# The simulator never calls this phone's payments back, and knows nothing when asked.
SILENT = "254712344042"


def settle(gateway: Gateway, body: bytes, *, path: str | None = None) -> None:
    """Post a callback for the silent phone's last push, and do the work."""
    response = gateway.post(path or gateway.callback_path(SILENT), body)
    assert response.status_code == 200, response.text
    gateway.work()


def types_told(gateway: Gateway) -> list[str]:
    return [json.loads(request.body)["type"] for request in gateway.receiver.requests]


def outcomes(gateway: Gateway) -> list[tuple[str, str | None]]:
    rows = gateway.rows("SELECT state, outcome FROM callbacks ORDER BY id")
    return [(row["state"], row["outcome"]) for row in rows]

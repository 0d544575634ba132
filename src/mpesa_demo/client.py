"""What a merchant's server does: calls the gateway's API. And what an auditor does: reads the
simulator's ledger. With the standard library, as a stranger's code would.
"""

from __future__ import annotations

import http.client
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mpesa_demo.scenarios import Scenario
from mpesa_gateway.clients.json_call import Answer, call

# Longer than POST /initiate may take: 15 s for the push, and time to save its outcome.
INITIATE_TIMEOUT_S = 35.0
# The first request with a key may be in flight that long.
MAX_TRIES = 20
LONGEST_RETRY_AFTER_S = 5.0
PAGE = 200


@dataclass(frozen=True)
class Merchant:
    """A merchant's server: the gateway's address and its key."""

    url: str
    key: str = field(repr=False)
    webhook_url: str

    def request_of(self, scenario: Scenario) -> dict[str, Any]:
        """The body of POST /initiate, with a fresh key."""
        return {
            "amount": str(scenario.amount),
            "phone": scenario.phone,
            "webhook_url": self.webhook_url,
            "idempotency_key": str(uuid.uuid4()),
            **scenario.fields,
        }

    def initiate(self, body: Mapping[str, Any]) -> Answer:
        """Ask for a payment; while the same key is in flight elsewhere, ask again as told."""
        for _ in range(MAX_TRIES):
            answer = call(
                f"{self.url}/initiate",
                "POST",
                headers=self._headers(),
                body=body,
                timeout_s=INITIATE_TIMEOUT_S,
            )
            if answer.status != 409:
                break
            retry_after = answer.headers.get("retry-after", "1")
            wait_s = float(retry_after) if retry_after.isdecimal() else 1.0
            time.sleep(min(wait_s, LONGEST_RETRY_AFTER_S))
        return answer

    def transactions(self) -> list[dict[str, Any]]:
        """The newest transactions."""
        items: list[dict[str, Any]] = self._get(f"/transactions?limit={PAGE}")["items"]
        return items

    def transaction(self, transaction_id: str) -> dict[str, Any]:
        """One transaction with its conflicts."""
        view: dict[str, Any] = self._get(f"/transactions/{transaction_id}")
        return view

    def _get(self, path: str) -> Any:
        answer = call(self.url + path, headers=self._headers())
        if answer.status != 200:
            raise http.client.HTTPException(f"GET {path} was answered {answer.status}")
        return answer.body

    def _headers(self) -> dict[str, str]:
        return {"X-Internal-Secret": self.key}


@dataclass(frozen=True)
class Ledger:
    """What the simulator saw and did, each list in order."""

    pushes: list[dict[str, Any]]
    debits: list[dict[str, Any]]
    callbacks: list[dict[str, Any]]
    queries: list[dict[str, Any]]


def read_ledger(simulator_url: str) -> Ledger:
    """Everything so far. Raises OSError, http.client.HTTPException."""
    answer = call(f"{simulator_url}/ledger")
    if answer.status != 200:
        raise http.client.HTTPException(f"GET /ledger was answered {answer.status}")
    kinds = ("pushes", "debits", "callbacks", "queries")
    return Ledger(**{kind: answer.body[kind] for kind in kinds})


def payments_under_way(simulator_url: str) -> int:
    """How many payments wait for their customer or their callback."""
    answer = call(f"{simulator_url}/")
    if answer.status != 200:
        raise http.client.HTTPException(f"GET / was answered {answer.status}")
    return int(answer.body["payments_under_way"])

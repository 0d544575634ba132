"""The program of `traffic.py`, in its container, as a test sees it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from harness.receiver import Received

PROGRAM = Path(__file__).with_name("traffic.py")
TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Fetched:
    """What a request from beside the gateway was answered. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: str
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Neighbour:
    """`url` is how the test reaches it, `hook` how the gateway does."""

    url: str
    hook: str
    session: requests.Session = field(default_factory=requests.Session)

    def is_up(self) -> bool:
        try:
            return self.session.get(self.url, timeout=2).ok
        except requests.ConnectionError:
            return False

    def webhooks(self, transaction_id: str = "") -> list[Received]:
        """Those about a transaction, or all."""
        seen = self.session.get(f"{self.url}/webhooks", timeout=TIMEOUT_S).json()
        received = [
            Received("/hook", it["headers"], base64.b64decode(it["body"]), it["at"]) for it in seen
        ]
        return [it for it in received if transaction_id.encode() in it.body]

    def fetch(
        self, method: str, url: str, *, body: Any = None, headers: dict[str, str] | None = None
    ) -> Fetched:
        """One request from there; a body that is not text goes as JSON."""
        asked: dict[str, Any] = {"method": method, "url": url, "headers": dict(headers or {})}
        if body is not None:
            asked["body"] = body if isinstance(body, str) else json.dumps(body)
            asked["headers"].setdefault("Content-Type", "application/json")
        return Fetched(**self._post("/fetch", asked).json())

    def start(self, **target: Any) -> None:
        """Begin the load."""
        self._post("/start", {"webhook": self.hook, **target})

    def stop(self) -> dict[str, Any]:
        """End it; what it saw."""
        report: dict[str, Any] = self._post("/stop", {}).json()
        return report

    def report(self) -> dict[str, Any]:
        """What it has seen so far."""
        report: dict[str, Any] = self.session.get(f"{self.url}/report", timeout=TIMEOUT_S).json()
        return report

    def _post(self, path: str, body: Any) -> requests.Response:
        response = self.session.post(self.url + path, json=body, timeout=TIMEOUT_S)
        assert response.ok, response.text
        return response

"""One HTTP call with JSON, with the standard library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

READ_TIMEOUT_S = 5.0
ANSWER_LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `body` is JSON, or None. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def replayed(self) -> bool:
        """Whether the key had this answer before."""
        return self.headers.get("idempotent-replayed") == "true"


def call(
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    timeout_s: float = READ_TIMEOUT_S,
) -> Answer:
    """One request. Raises OSError, http.client.HTTPException."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port or 80, timeout=timeout_s
    )
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    content = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if body is not None else {}
    try:
        connection.request(method, path, content, {**sent, **(headers or {})})
        response = connection.getresponse()
        raw = response.read(ANSWER_LIMIT)
    finally:
        connection.close()
    received = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, received, _parse(raw))


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None

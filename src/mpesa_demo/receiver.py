"""A merchant's endpoint: checks both signatures of each webhook, and keeps what it was told.

The check is written out here, apart from the code that signs, so that a mistake in one of them
shows.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from mpesa_devkit.http_server import QuietServer

BODY_LIMIT = 64 * 1024
READ_TIMEOUT_S = 10.0
# A webhook whose timestamp is further off may be a replay (Standard Webhooks' usual tolerance).
TOLERANCE_S = 300
MAX_KEPT = 10_000
SECRET_PREFIX = "whsec_"  # noqa: S105 - marks a base64 secret, is none


@dataclass(frozen=True)
class Received:
    """One webhook. `problem` says why it is not to be believed, None when both signatures hold."""

    transaction_id: str
    type: str
    webhook_id: str
    problem: str | None = None

    @property
    def verified(self) -> bool:
        """Whether both signatures hold."""
        return self.problem is None


def find_problem(secret: str, headers: Mapping[str, str], body: bytes, now_s: float) -> str | None:
    """Why a webhook is not to be believed. Header names are lower case."""
    key = _key(secret)
    expected = hmac.new(key, body, hashlib.sha256).hexdigest()
    if not _equal(headers.get("x-signature", ""), expected):
        return "X-Signature is not that of the body"
    webhook_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not webhook_id or not timestamp.isascii() or not timestamp.isdecimal():
        return "webhook-id or webhook-timestamp is missing"
    if abs(now_s - int(timestamp[:12])) > TOLERANCE_S:
        return "webhook-timestamp is too far from now"
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    signatures = headers.get("webhook-signature", "").split()
    if not any(_equal(signature, f"v1,{digest}") for signature in signatures):
        return "webhook-signature is not that of id, timestamp and body"
    return None


def _key(secret: str) -> bytes:
    """Standard Webhooks: what follows `whsec_` is base64; any other secret is its own bytes."""
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return secret.encode()


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


class Receiver:
    """An HTTP server in a thread, on a free port of 127.0.0.1. `count` is of all that came."""

    def __init__(self, secret: str, *, clock_s: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock_s = clock_s
        self._received: deque[Received] = deque(maxlen=MAX_KEPT)
        self.count = 0
        self._lock = threading.Lock()
        self._server = QuietServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[0.05], name="receiver", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(READ_TIMEOUT_S)
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """What to give as `webhook_url`."""
        return f"http://127.0.0.1:{self.port}/webhooks"

    def all(self) -> list[Received]:
        """Every webhook so far, in the order they came; of very many the last ones."""
        with self._lock:
            return list(self._received)

    def since(self, seen: int) -> list[Received]:
        """Those that came after the first `seen`."""
        with self._lock:
            new = self.count - seen
            return list(self._received)[-new:] if new else []

    def receive(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Check a webhook and keep it; whether it is to be believed."""
        problem = find_problem(self._secret, headers, body, self._clock_s())
        content = _parse(body)
        received = Received(
            transaction_id=str(content.get("transaction_id", "")),
            type=str(content.get("type", "")),
            webhook_id=headers.get("webhook-id", ""),
            problem=problem,
        )
        with self._lock:
            self._received.append(received)
            self.count += 1
        return received.verified


def _parse(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = READ_TIMEOUT_S

        def do_POST(self) -> None:
            """200 when it is to be believed, 401 when it is not, 411 and 413 unread."""
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdecimal() or len(length) > 12:
                self._answer(411)
            elif int(length) > BODY_LIMIT:
                self._answer(413)
            else:
                headers = {name.lower(): value for name, value in self.headers.items()}
                believed = receiver.receive(headers, self.rfile.read(int(length)))
                self._answer(200 if believed else 401)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status in (411, 413):
                # What was not read would be taken for the next request.
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """The demo shows what came."""

    return Handler

"""A merchant's endpoint: answers as told, and keeps every request it saw."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

import standardwebhooks

from mpesa_devkit.http_server import QuietServer
from mpesa_gateway.domain.signature import body_signature, signing_key


@dataclass(frozen=True)
class Received:
    """One request. Header names are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> Any:
        """Check both signatures, one with an outside library; the parsed body."""
        assert self.headers["x-signature"] == body_signature(secret, self.body)
        witness = standardwebhooks.Webhook(signing_key(secret))
        # Not its `verify`: that refuses what is five minutes old, and a run is longer.
        sent_at = datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), UTC)
        signature = witness.sign(self.webhook_id, sent_at, self.body.decode())
        assert signature in self.headers["webhook-signature"].split()
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to answer: by hand when `act` is given."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    act: Callable[[BaseHTTPRequestHandler], None] | None = None


class Receiver:
    """An HTTP server in a thread. `answers` are used up first, then `default` for ever."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[Received] = []
        self.answers: list[Answer] = []
        self.default = Answer()
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._receive(self)

            do_GET = do_POST  # noqa: N815 - the base class's name

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietServer((host, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def _receive(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", "0"))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(length)
        if len(body) < length:
            # Its sender was killed half-way: no endpoint takes that for a request.
            handler.close_connection = True
            return
        request = Received(handler.path, headers, body)
        with self._lock:
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else self.default
        if answer.act is not None:
            answer.act(handler)
            return
        handler.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body)

    def of(self, transaction_id: str) -> list[Received]:
        """The requests about one transaction."""
        return [it for it in list(self.requests) if transaction_id.encode() in it.body]

"""The merchants' endpoints: a steady one, and one that the nemesis makes misbehave."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Self

from harness.receiver import Answer, Received, Receiver

# Longer than the gateway waits for an endpoint.
HANG_S = 14.0
DRIP_PAUSE_S = 0.5
REDIRECT_STATUS = 302
STEADY_PATH = "/steady/"
TROUBLED_PATH = "/troubled/"
# Where a redirect leads, and nobody may follow it.
AWAY_PATH = "/away"


class Endpoints:
    """Two receivers on two ports: what one does must not delay the other's webhooks."""

    def __init__(self) -> None:
        self.steady = Receiver()
        self.troubled = Receiver()
        self.mode = ""
        # What each webhook was answered, in order; None when it was not.
        self.answers: dict[str, list[int | None]] = collections.defaultdict(list)
        self._lock = threading.Lock()
        self.steady.default = Answer(act=lambda handler: self._answer(handler, 200))
        self.troubled.default = Answer(act=self._misbehave)

    def __enter__(self) -> Self:
        self.steady.__enter__()
        self.troubled.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.mode = ""
        self.steady.__exit__()
        self.troubled.__exit__()

    @property
    def requests(self) -> list[Received]:
        """Every request to either."""
        return [*self.steady.requests, *self.troubled.requests]

    def url(self, path: str) -> str:
        """A payment's endpoint; its path says which of the two it is."""
        receiver = self.troubled if path.startswith(TROUBLED_PATH) else self.steady
        return f"http://127.0.0.1:{receiver.port}{path}"

    def _misbehave(self, handler: BaseHTTPRequestHandler) -> None:
        mode = self.mode
        if mode == "hangs":
            self._note(handler, None)
            time.sleep(HANG_S)
        elif mode == "drips":
            self._note(handler, None)
            self._drip(handler)
        elif mode == "redirects":
            self._answer(handler, REDIRECT_STATUS, Location=self.url(AWAY_PATH))
        elif mode == "says 410":
            self._answer(handler, 410)
        elif mode == "says 429":
            self._answer(handler, 429, **{"Retry-After": "2"})
        else:
            self._answer(handler, 200)

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, **headers: str) -> None:
        self._note(handler, status)
        handler.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    def _note(self, handler: BaseHTTPRequestHandler, status: int | None) -> None:
        with self._lock:
            self.answers[handler.headers["webhook-id"]].append(status)

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        """A byte of a header now and then, without end."""
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            for _ in range(int(HANG_S / DRIP_PAUSE_S)):
                handler.wfile.write(b"a")
                handler.wfile.flush()
                time.sleep(DRIP_PAUSE_S)
        handler.close_connection = True

"""The merchants' endpoint: answers 200 after a millisecond and notes when each webhook came.

One loop in a thread of its own; every address of 127.0.0.0/8 is another endpoint (origin).
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import Self, cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
DELAY_S = 0.001
BLACK_HOLE = "127.0.0.2"
_TRANSACTION = re.compile(rb'"transaction_id": ?"([0-9a-f-]+)"')
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class _Webhook(asyncio.Protocol):
    def __init__(self, endpoint: Endpoint, *, answers: bool) -> None:
        self._endpoint = endpoint
        self._answers = answers
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        length = _LENGTH.search(self._buffer) if end >= 0 else None
        if length is None or len(self._buffer) < end + 4 + int(length[1]) or not self._answers:
            return
        found = _TRANSACTION.search(self._buffer, end)
        self._buffer = b""
        if found is not None:
            self._endpoint.arrived_at.setdefault(found[1].decode(), time.perf_counter())
        asyncio.get_running_loop().call_later(DELAY_S, self._answer)

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(ANSWER)


class Endpoint:
    """Endpoints that answer, at every loopback address, and one black hole that never does."""

    def __init__(self) -> None:
        self.arrived_at: dict[str, float] = {}
        self.port = self.black_hole_port = 0
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def urls(self, count: int, *, black_hole: bool = False) -> list[str]:
        """So many endpoints; the last may be the black hole."""
        healthy = [f"http://127.0.0.{10 + it}:{self.port}/webhooks" for it in range(count)]
        if black_hole:
            healthy[-1] = f"http://{BLACK_HOLE}:{self.black_hole_port}/webhooks"
        return healthy

    def black_holes(self, count: int) -> list[str]:
        """So many endpoints, each an origin of its own, that accept and never answer."""
        return [f"http://127.0.1.{1 + it}:{self.black_hole_port}/webhooks" for it in range(count)]

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        servers = [
            await self._loop.create_server(
                lambda answers=answers: _Webhook(self, answers=answers),  # type: ignore[misc]  # mypy cannot infer a lambda's default
                "0.0.0.0",  # noqa: S104 - every loopback address is an endpoint of its own
                0,
                backlog=1024,
            )
            for answers in (True, False)
        ]
        self.port, self.black_hole_port = (it.sockets[0].getsockname()[1] for it in servers)
        self._ready.set()
        await self._stop.wait()
        for server in servers:
            server.close()

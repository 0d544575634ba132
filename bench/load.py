"""The load generator: HTTP/1.1 over raw sockets in one event loop, kept-alive connections.

Closed (each connection asks again once it is answered) or paced (so many a second, whatever the
answers do).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import uvloop

HOST = "127.0.0.1"
# An answer that takes longer is counted as none.
ANSWER_TIMEOUT_S = 30.0
NO_ANSWER = 0
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)

Request = tuple[int, bytes]


@dataclass
class Sample:
    """What one run saw. A status of 0 is a connection that broke, or no answer in time."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    # Of those answered 200 or 201, in seconds.
    latencies: list[float] = field(default_factory=list)
    # The same of all others.
    refusals: list[float] = field(default_factory=list)
    in_time: int = 0
    kept: list[int] = field(default_factory=list)
    sent_at: dict[int, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Good answers a second, of those that came before the end."""
        return self.in_time / self.seconds

    @property
    def errors(self) -> int:
        """Every answer that was not 200 or 201."""
        return sum(n for status, n in self.statuses.items() if status not in (200, 201))

    def note(self, key: int, status: int, latency: float, *, in_time: bool) -> None:
        """One answer."""
        self.statuses[status] += 1
        if status in (200, 201):
            self.latencies.append(latency)
            self.kept.append(key)
            self.in_time += in_time
        else:
            self.refusals.append(latency)


def quantile(values: list[float], share: float) -> float:
    """The value below which that share lies; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class _Connection(asyncio.Protocol):
    """One request at a time. `answered` is called with the status, 0 when the connection broke."""

    def __init__(self, answered: Callable[[_Connection, int], None]) -> None:
        self._answered = answered
        self._buffer = b""
        self._asked = False
        self.transport: asyncio.Transport | None = None
        self.key = -1
        self.asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio.
        self.transport = cast("asyncio.Transport", transport)

    @property
    def is_open(self) -> bool:
        """Whether it may be asked."""
        return self.transport is not None and not self.transport.is_closing()

    def ask(self, key: int, request: bytes) -> None:
        """Send it."""
        assert self.transport is not None
        self.key, self._asked, self.asked_at = key, True, time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 4)
        if len(self._buffer) < end + 4 + (int(length[1]) if length else 0):
            return
        status = int(self._buffer[9:12])
        self._buffer = b""
        if self._asked:
            self._asked = False
            self._answered(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._asked:
            self._asked = False
            self._answered(self, NO_ANSWER)

    def close(self) -> None:
        """Hang up."""
        if self.transport is not None:
            self.transport.close()


async def _closed(
    port: int, requests: Iterator[Request], connections: int, seconds: float
) -> Sample:
    loop = asyncio.get_running_loop()
    sample = Sample(seconds=seconds)
    idle = asyncio.Event()
    busy = connections
    end = 0.0

    def answered(connection: _Connection, status: int) -> None:
        now = time.perf_counter()
        sample.note(connection.key, status, now - connection.asked_at, in_time=now < end)
        go_on(connection, now)

    def go_on(connection: _Connection, now: float) -> None:
        nonlocal busy
        following = next(requests, None) if now < end and connection.is_open else None
        if following is not None:
            connection.ask(*following)
            return
        busy -= 1
        if busy == 0:
            idle.set()

    made = [
        (await loop.create_connection(lambda: _Connection(answered), HOST, port))[1]
        for _ in range(connections)
    ]
    started = time.perf_counter()
    end = started + seconds
    for connection in made:
        go_on(connection, started)
    async with asyncio.timeout(seconds + ANSWER_TIMEOUT_S):
        await idle.wait()
    for connection in made:
        connection.close()
    # Less when the requests ran out.
    sample.seconds = min(seconds, time.perf_counter() - started)
    return sample


def closed(port: int, requests: Iterator[Request], *, connections: int, seconds: float) -> Sample:
    """So many connections, each with one request in flight, for so long."""
    sample: Sample = uvloop.run(_closed(port, requests, connections, seconds))
    return sample


class _Paced:
    """Connections that take turns; a request that finds none idle waits for the next one."""

    def __init__(self, port: int, requests: int) -> None:
        self.sample = Sample()
        self.done = asyncio.Event()
        self._port = port
        self._left = requests
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[Request] = deque()

    async def connect(self) -> None:
        """One more connection."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            lambda: _Connection(self._answered), HOST, self._port
        )
        self._use(made)

    def send(self, key: int, request: bytes) -> None:
        """Now, or as soon as a connection is idle."""
        self.sample.sent_at[key] = time.perf_counter()
        self._waiting.append((key, request))
        if self._idle:
            self._use(self._idle.popleft())

    def close(self) -> None:
        """Hang up."""
        for connection in self._idle:
            connection.close()

    def _use(self, connection: _Connection) -> None:
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _answered(self, connection: _Connection, status: int) -> None:
        latency = time.perf_counter() - connection.asked_at
        self.sample.note(connection.key, status, latency, in_time=True)
        self._left -= 1
        if self._left == 0:
            self.done.set()
        if connection.is_open:
            self._use(connection)
        else:
            asyncio.get_running_loop().create_task(self.connect())


async def paced(
    port: int, requests: list[Request], *, per_second: float, connections: int
) -> Sample:
    """Each request at its time, whatever became of those before."""
    run = _Paced(port, len(requests))
    for _ in range(connections):
        await run.connect()
    started = time.perf_counter()
    for number, (key, request) in enumerate(requests):
        pause = started + number / per_second - time.perf_counter()
        if pause > 0.0005 or number % 64 == 0:
            await asyncio.sleep(max(pause, 0))
        run.send(key, request)
    run.sample.seconds = time.perf_counter() - started
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        await run.done.wait()
    run.close()
    return run.sample

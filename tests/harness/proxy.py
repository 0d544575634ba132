"""A bad network of our own: a TCP proxy that delays, cuts, freezes and swallows.

It runs in an event loop in a thread. `Network` is what the nemesis changes while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from harness.postgres_wire import Session

CHUNK_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 1.0
POLL_S = 0.05


@dataclass
class Network:
    """How bad it is now. `cut_after` bytes of an answer the connection is cut.

    `swallow` is how many more commits are done without their answer coming through.
    """

    delay_s: float = 0.0
    cut_after: int | None = None
    frozen: bool = False
    swallow: int = 0
    swallowed: int = 0
    cut: int = 0


class Proxy:
    """Listens on a free port and connects to the first of its targets that accepts.

    Each connection begins with the next target, so that several are used in turn. A `Network` is
    given for Postgres only, whose protocol is then read.
    """

    def __init__(self, *targets: int, network: Network | None = None) -> None:
        self._targets = targets
        self._turns = itertools.count()
        self._network = network
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)

    def redirect(self, *targets: int) -> None:
        """New connections go there; those that are open stay."""
        self._targets = targets

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket))
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is None:
            writer.transport.abort()
            return
        link = Link(self._network or Network(), is_postgres=self._network is not None)
        pumps = [
            asyncio.create_task(link.pump(reader, upstream[1], link.sent)),
            asyncio.create_task(link.pump(upstream[0], writer, link.answered)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for end in (writer, upstream[1]):
                # What an end was sent before the other closed still reaches it.
                end.transport.abort() if link.is_cut else end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        turn = next(self._turns)
        for number in range(len(self._targets)):
            port = self._targets[(turn + number) % len(self._targets)]
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    return await asyncio.open_connection("127.0.0.1", port)
        return None


class Link:
    """One connection through the proxy."""

    def __init__(self, network: Network, *, is_postgres: bool) -> None:
        self._network = network
        self._session = Session() if is_postgres else None
        self._swallowing = False
        self._answered_bytes = 0
        self.is_cut = False

    async def pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        look: Callable[[bytes], bytes | None],
    ) -> None:
        """Carry bytes until either end closes, or `look` says None: then the cut comes."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                while self._network.frozen:  # noqa: ASYNC110 - another thread changes it
                    await asyncio.sleep(POLL_S)
                if self._network.delay_s:
                    await asyncio.sleep(self._network.delay_s)
                passed = look(data)
                if passed is None:
                    self.is_cut = True
                    return
                writer.write(passed)
                await writer.drain()

    def sent(self, data: bytes) -> bytes | None:
        """What goes on to the server."""
        if self._session and self._session.commits(data) and self._network.swallow > 0:
            self._network.swallow -= 1
            self._swallowing = True
        return data

    def answered(self, data: bytes) -> bytes | None:
        """What comes through to the client, None when the connection ends here."""
        done = self._session.is_done(data) if self._session else False
        if self._swallowing:
            if not done:
                return b""
            # It is committed, and nobody will hear of it.
            self._network.swallowed += 1
            return None
        limit = self._network.cut_after
        if limit is None:
            self._answered_bytes = 0
            return data
        self._answered_bytes += len(data)
        if self._answered_bytes > limit:
            self._network.cut += 1
            return None
        return data

"""The callback inbox of a process: callbacks that arrive together share one commit.

One flusher thread takes what waits (no timer) and keeps it in one statement (`api/keeper.py`). Each
request is answered after its own commit. Rules, each with a test: a waiter that hung up never stops
the flusher; the line is bounded; Postgres away means 503 at once; who would wait for too long hears
503 at once; commits are for those who still wait for their answer first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

from mpesa_gateway import tracing
from mpesa_gateway.api.arrivals import Arrival, answer, give_up
from mpesa_gateway.api.keeper import Denials, Keeper
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.merchant import Address, Network
from mpesa_gateway.domain.work import Work
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.log import get_logger
from mpesa_gateway.merchants import Snapshot
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.store.pool import Pool

LOGGER = get_logger(__name__)

MAX_BATCH = 64
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_WAITING = 2048
MAX_WAITING_BYTES = 48 * 1024 * 1024
# Of those that were answered 503 already.
MAX_LATE = 2048
MAX_LATE_BYTES = 16 * 1024 * 1024
# The answer to Safaricom, whatever happens: 503 within 2 s, and this leaves room for the rest.
ACK_TIMEOUT_S = 1.5
ACQUIRE_TIMEOUT_S = 0.8
# Once the first in the line has waited this long, who comes hears 503 at once: waiting behind it
# would end in a 503 too. What it brought is kept when the line has gone, if there is room.
LATE_S = 1.3
# The same when the line is so long that it would wait this long at the pace of the last flushes,
# which is a guess.
LONG_LINE_S = 1.0
PACE_OF = 5


class _Line:
    """Callbacks that wait, bounded in number and bytes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> Arrival | None:
        """Who came first."""
        return self._waiting[0] if self._waiting else None

    def add(self, arrival: Arrival) -> bool:
        """At the end; False when there is no room."""
        size = len(arrival.body)
        if len(self._waiting) >= self._most or self._bytes + size > self._most_bytes:
            return False
        self._waiting.append(arrival)
        self._bytes += size
        return True

    def take(self, aside: _Line | None = None) -> list[Arrival]:
        """The first ones, for one statement. Who waits for no answer any more is put aside."""
        batch: list[Arrival] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
            arrival = self._waiting[0]
            is_aside = aside is not None and arrival.future.done()
            if batch and not is_aside and size + len(arrival.body) > MAX_BATCH_BYTES:
                break
            self._waiting.popleft()
            self._bytes -= len(arrival.body)
            if aside is not None and is_aside:
                aside.add(arrival)
                continue
            size += len(arrival.body)
            batch.append(arrival)
        return batch


class Inbox:
    """Takes callbacks from the event loop and commits them from one thread."""

    def __init__(
        self,
        pool: Pool,
        *,
        merchants: Callable[[], Snapshot],
        platform: tuple[Network, ...],
        clock: Callable[[], datetime],
        ring: Callable[[list[Work]], None],
    ) -> None:
        self._pool = pool
        self._keeper = Keeper(Denials(merchants, platform), ring)
        self._clock = clock
        self._line = _Line(MAX_WAITING, MAX_WAITING_BYTES)
        # Answered 503 already; taken when nobody waits.
        self._late = _Line(MAX_LATE, MAX_LATE_BYTES)
        self._flushes_s: deque[float] = deque(maxlen=PACE_OF)
        self._pace_s = 0.0
        self._is_flushing = False
        self._changed = threading.Condition()
        # The event loop that will wake the flusher once it has read all that it can.
        self._waking: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to flush."""
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Flush what waits, then end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def is_alive(self) -> bool:
        """Whether callbacks are being taken."""
        return self._thread is not None and self._thread.is_alive()

    async def put(
        self, token: CallbackToken | None, body: bytes, headers: dict[str, str], address: Address
    ) -> Verdict:
        """Return once the callback is committed, or refused. Raises UnavailableError."""
        return await self.offer(token, body, headers, address)

    def offer(
        self, token: CallbackToken | None, body: bytes, headers: dict[str, str], address: Address
    ) -> asyncio.Future[Verdict]:
        """The same as a future. Raises UnavailableError when that is known at once."""
        loop = asyncio.get_running_loop()
        arrival = Arrival(
            token=token,
            body=body,
            headers=headers,
            address=address,
            received_at=self._clock(),
            future=loop.create_future(),
            sha256=hashlib.sha256(body).digest(),
            started_at_ns=tracing.started_at_ns(),
        )
        with self._changed:
            if self._stopping:
                raise UnavailableError("the gateway stops")
            is_late = self._is_too_late(arrival) or not self._line.add(arrival)
            if is_late:
                arrival.future.cancel()
                self._late.add(arrival)
        if self._waking is not loop:
            self._waking = loop
            loop.call_soon(self._wake)
        if is_late:
            raise UnavailableError("too many callbacks are waiting")
        arrival.timer = loop.call_later(ACK_TIMEOUT_S, give_up, arrival.future)
        return arrival.future

    def _wake(self) -> None:
        """Behind all that the loop could read by now, so that it goes into the same commit."""
        self._waking = None
        with self._changed:
            self._changed.notify()

    def _is_too_late(self, arrival: Arrival) -> bool:
        """Whether it would wait in the line for longer than its answer may take."""
        first = self._line.first
        if first is not None and arrival.arrived_s - first.arrived_s > LATE_S:
            return True
        flushes_before = len(self._line) // MAX_BATCH + self._is_flushing
        return flushes_before > 0 and (flushes_before + 1) * self._pace_s > LONG_LINE_S

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            try:
                self._flush(batch)
            except Exception as error:
                answer([(arrival, error) for arrival in batch])
                # Nothing may end this thread: not even a log line that cannot be written.
                with contextlib.suppress(Exception):
                    LOGGER.exception("callbacks could not be kept")

    def _take(self) -> list[Arrival] | None:
        """What waits, within the limits of one statement; None at the end."""
        with self._changed:
            self._is_flushing = False
            while True:
                if batch := self._line.take(aside=self._late) or self._late.take():
                    self._is_flushing = True
                    return batch
                if self._stopping:
                    return None
                self._changed.wait()

    def _flush(self, batch: list[Arrival]) -> None:
        # Those who were told 503 already are kept too, if it can be: Safaricom does not repeat.
        begun_s = time.monotonic()
        try:
            with self._pool.connection("inbox.keep", ACQUIRE_TIMEOUT_S) as conn:
                self._keeper.keep(conn, batch)
            # The median, so that one slow commit sends nobody away; and of what succeeded.
            self._flushes_s.append(time.monotonic() - begun_s)
            self._pace_s = sorted(self._flushes_s)[len(self._flushes_s) // 2]
        except UnavailableError as error:
            answer([(arrival, error) for arrival in batch])
            LOGGER.warning("callbacks answered 503", callbacks=len(batch), problem=str(error))

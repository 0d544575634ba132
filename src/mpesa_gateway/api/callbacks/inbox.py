"""The callback inbox of a process: callbacks that arrive together share one commit.

One flusher thread takes what waits (no timer) and keeps it in one statement (`batch_writer.py`).
Each request is answered after its own commit. Rules, each with a test: a waiter that hung up never
stops the flusher; the queue is bounded; with Postgres away a callback is answered 503 at once, and
so is one that would wait too long; waiters that are still connected are committed first; what was
answered 503 is held in memory, within limits, and committed when Postgres is back, because
Safaricom does not repeat it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

from mpesa_gateway.api.callbacks import spooled
from mpesa_gateway.api.callbacks.batch_writer import NO_KEYS, AllowlistCache, BatchWriter
from mpesa_gateway.api.callbacks.pending import PendingCallback, answer, give_up
from mpesa_gateway.domain.ids import CallbackToken, TokenKeys
from mpesa_gateway.domain.merchant import Address, Network
from mpesa_gateway.domain.work import Work
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store.inbox import NewCallback, Verdict
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.spool import Spool
from mpesa_gateway.telemetry import metrics, tracing
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

MAX_BATCH = 64
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_WAITING = 2048
MAX_WAITING_BYTES = 48 * 1024 * 1024
# Of those that were answered 503 already. Eight a second for four minutes.
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
# A flush that fails sooner met a connection that had ended, or one of a server that takes no writes
# any more: there is time for another connection.
AGAIN_WITHIN_S = 0.6
# Between two attempts to commit what is held, while Postgres is away.
HELD_PAUSE_S = 0.5
# A statement's deadline is a fifth of it: a flush that takes longer has lost its way.
STUCK_S = 60.0
# At the end, for what is held; gunicorn grants 30 s for everything.
STOP_S = 8.0


class _Line:
    """Callbacks that wait, bounded in number and bytes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[PendingCallback] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def count_without_entry(self) -> int:
        """How many are in memory only."""
        return sum(arrival.entry is None for arrival in self._waiting)

    @property
    def first(self) -> PendingCallback | None:
        """Who came first."""
        return self._waiting[0] if self._waiting else None

    def add(self, arrival: PendingCallback) -> bool:
        """At the end; False when there is no room."""
        size = len(arrival.body)
        if len(self._waiting) >= self._most or self._bytes + size > self._most_bytes:
            return False
        self._waiting.append(arrival)
        self._bytes += size
        return True

    def take(self, aside: _Line | None = None) -> list[PendingCallback]:
        """The first ones, for one statement. Who waits for no answer any more is put aside."""
        batch: list[PendingCallback] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
            arrival = self._waiting[0]
            is_aside = aside is not None and arrival.future.done()
            if batch and not is_aside and size + len(arrival.body) > MAX_BATCH_BYTES:
                break
            self._waiting.popleft()
            self._bytes -= len(arrival.body)
            if aside is not None and is_aside:
                if not aside.add(arrival):
                    metrics.callbacks_dropped_total.inc()
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
        notify: Callable[[list[Work]], None],
        token_keys: TokenKeys = NO_KEYS,
        spool: Spool | None = None,
        remember: Callable[[Sequence[NewCallback]], None] = lambda _: None,
    ) -> None:
        self._pool = pool
        self._spool = spool
        self._batch_writer = BatchWriter(
            AllowlistCache(merchants, platform), notify, token_keys, remember
        )
        self._clock = clock
        self._line = _Line(MAX_WAITING, MAX_WAITING_BYTES)
        # Answered 503 already; taken when nobody waits.
        self._late = _Line(MAX_LATE, MAX_LATE_BYTES)
        self._late_from_s = 0.0
        self._stop_by_s = 0.0
        self._flushes_s: deque[float] = deque(maxlen=PACE_OF)
        self._pace_s = 0.0
        self._is_flushing = False
        # On the monotonic clock; None while nothing is being flushed.
        self.flushing_since_s: float | None = None
        self._changed = threading.Condition()
        # The event loop that will wake the flusher once it has read all that it can.
        self._waking: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to flush, with what a process before this one left in the spool."""
        if self._spool is not None:
            with self._changed:
                self._hold(list(spooled.load(self._spool)))
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Flush the queue, then end. Held callbacks get a few seconds if Postgres is away."""
        with self._changed:
            self._stopping = True
            self._stop_by_s = time.monotonic() + STOP_S
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=STOP_S + 2)
        if lost := self._late.count_without_entry():
            LOGGER.error("callbacks that were answered 503 are lost", callbacks=lost)

    def is_alive(self) -> bool:
        """Whether callbacks are being taken: a flush takes seconds at most."""
        since_s = self.flushing_since_s
        is_stuck = since_s is not None and time.monotonic() - since_s > STUCK_S
        return self._thread is not None and self._thread.is_alive() and not is_stuck

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
        arrival = PendingCallback(
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
                self._hold([arrival])
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

    def _is_too_late(self, arrival: PendingCallback) -> bool:
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

    def _take(self) -> list[PendingCallback] | None:
        """What waits, within the limits of one statement; None at the end."""
        with self._changed:
            self._is_flushing = False
            self.flushing_since_s = None
            while True:
                now = time.monotonic()
                batch = self._line.take(aside=self._late)
                if not batch and now >= self._late_from_s:
                    batch = self._late.take()
                if batch:
                    self._is_flushing = True
                    self.flushing_since_s = now
                    return batch
                if self._stopping and (not self._late or now >= self._stop_by_s):
                    return None
                self._changed.wait(self._late_from_s - now if self._late else None)

    def _hold(self, batch: list[PendingCallback]) -> None:
        """Keep what was answered 503 for later, as far as there is room. Called with the lock."""
        dropped = sum(not self._late.add(arrival) for arrival in batch)
        metrics.callbacks_held.set(len(self._late))
        if dropped:
            metrics.callbacks_dropped_total.inc(dropped)

    def _flush(self, batch: list[PendingCallback]) -> None:
        # Those who were told 503 already are kept too, if it can be: Safaricom does not repeat.
        begun_s = time.monotonic()
        try:
            self._keep(batch)
            # The median, so that one slow commit sends nobody away; and of what succeeded.
            self._flushes_s.append(time.monotonic() - begun_s)
            self._pace_s = sorted(self._flushes_s)[len(self._flushes_s) // 2]
            metrics.callbacks_held.set(len(self._late))
        except UnavailableError as error:
            self._put_off([arrival for arrival in batch if not arrival.is_judged], error)
        finally:
            self._clear_spool(batch)

    def _keep(self, batch: list[PendingCallback]) -> None:
        """Commit it; once more on another connection when the first one failed at once."""
        begun_s = time.monotonic()
        try:
            self._keep_once(batch)
        except UnavailableError:
            if time.monotonic() - begun_s > AGAIN_WITHIN_S:
                raise
            self._keep_once([arrival for arrival in batch if not arrival.is_judged])

    def _keep_once(self, batch: list[PendingCallback]) -> None:
        with self._pool.connection("inbox.keep", ACQUIRE_TIMEOUT_S) as conn:
            self._batch_writer.keep(conn, batch)

    def _clear_spool(self, batch: list[PendingCallback]) -> None:
        """Remove the entries of those about which nothing is left to do."""
        if self._spool is not None:
            for arrival in batch:
                if arrival.is_judged and arrival.entry is not None:
                    self._spool.remove(arrival.entry)

    def _put_off(self, batch: list[PendingCallback], error: UnavailableError) -> None:
        if self._spool is not None:
            for arrival in batch:
                spooled.put(self._spool, arrival)
        answer([(arrival, error) for arrival in batch])
        with self._changed:
            self._late_from_s = time.monotonic() + HELD_PAUSE_S
            self._hold(batch)
        LOGGER.warning("callbacks answered 503", callbacks=len(batch), problem=str(error))

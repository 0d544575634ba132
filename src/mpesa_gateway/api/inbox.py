"""The callback inbox of a process: callbacks that arrive together share one commit.

One flusher thread takes what waits (no timer), checks tokens and addresses, and writes one
multi-row INSERT. Each request is answered after its own commit. Rules, each with a test:
equal keys are merged first; keys are sorted; a failed batch is retried row by row; a waiter that
hung up never stops the flusher; the line is bounded; Postgres away means 503 at once; who would
wait for too long hears 503 at once; commits are for those who still wait for their answer first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from mpesa_gateway import metrics, tracing
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.merchant import Address, Network, is_allowed
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.log import get_logger
from mpesa_gateway.merchants import Snapshot
from mpesa_gateway.store import callbacks
from mpesa_gateway.store.callbacks import NewCallback, TokenOwner
from mpesa_gateway.store.pool import Connection, Pool

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


class Verdict(Enum):
    """How a callback was taken."""

    KEPT = "kept"
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - a reason
    NOT_ALLOWED = "not_allowed"


@dataclass(eq=False)
class Arrival:
    """A callback that waits for its commit. `token` is None on the plain path."""

    token: CallbackToken | None
    body: bytes
    headers: dict[str, str]
    address: Address
    received_at: datetime
    future: asyncio.Future[Verdict] = field(repr=False)
    sha256: bytes = b""
    transaction: int | None = None
    started_at_ns: int | None = None
    span: tracing.Span = tracing.NO_SPAN
    arrived_s: float = field(default_factory=time.monotonic)
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    def to_row(self) -> NewCallback:
        """As the store keeps it."""
        return NewCallback(
            transaction=self.transaction,
            body=self.body,
            body_sha256=self.sha256,
            headers=self.headers,
            source=str(self.address),
            received_at=self.received_at,
            traceparent=self.span.traceparent,
        )


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
        self._merchants = merchants
        self._platform = platform
        self._clock = clock
        self._ring = ring
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
        arrival.timer = loop.call_later(ACK_TIMEOUT_S, _give_up, arrival.future)
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
                _answer([(arrival, error) for arrival in batch])
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
                self._keep(conn, self._judge(conn, batch))
            # The median, so that one slow commit sends nobody away; and of what succeeded.
            self._flushes_s.append(time.monotonic() - begun_s)
            self._pace_s = sorted(self._flushes_s)[len(self._flushes_s) // 2]
        except UnavailableError as error:
            _answer([(arrival, error) for arrival in batch])
            LOGGER.warning("callbacks answered 503", callbacks=len(batch), problem=str(error))

    def _judge(self, conn: Connection, batch: list[Arrival]) -> list[Arrival]:
        """Check tokens and addresses; those that are refused are answered here."""
        ids = [arrival.token.transaction for arrival in batch if arrival.token is not None]
        owners = callbacks.find_token_owners(conn, ids) if ids else {}
        snapshot = self._merchants()
        allowed: list[Arrival] = []
        refused: list[tuple[Arrival, Verdict]] = []
        for arrival in batch:
            owner = owners.get(arrival.token.transaction) if arrival.token is not None else None
            verdict = self._verdict(arrival, owner, snapshot)
            if verdict is Verdict.KEPT:
                arrival.transaction = owner.row if owner is not None else None
                if arrival.started_at_ns is not None:
                    _trace(arrival, owner)
                allowed.append(arrival)
            else:
                refused.append((arrival, verdict))
        _answer(refused)
        return allowed

    def _verdict(self, arrival: Arrival, owner: TokenOwner | None, snapshot: Snapshot) -> Verdict:
        if arrival.token is None:
            # The platform's list was checked already; which merchant it is, the worker finds out.
            return Verdict.KEPT
        if owner is None or not arrival.token.matches(owner.callback_secret_sha256):
            return Verdict.UNKNOWN_TOKEN
        merchant = snapshot.find(owner.merchant)
        narrowed = merchant.allowed_networks if merchant is not None else ()
        allowed = is_allowed(arrival.address, self._platform, narrowed)
        return Verdict.KEPT if allowed else Verdict.NOT_ALLOWED

    def _keep(self, conn: Connection, arrivals: list[Arrival]) -> None:
        """One statement for all; if it fails, one for each, so that a bad row harms only itself."""
        if not arrivals:
            return
        try:
            new = callbacks.insert_batch(conn, merge([arrival.to_row() for arrival in arrivals]))
        except Exception as error:
            if conn.closed or conn.broken or len(arrivals) == 1:
                raise
            LOGGER.warning("batch failed, keeping one by one", problem=type(error).__name__)
            for arrival in arrivals:
                self._keep_one(conn, arrival)
            return
        self._kept(arrivals, new)

    def _keep_one(self, conn: Connection, arrival: Arrival) -> None:
        try:
            new = callbacks.insert_batch(conn, [arrival.to_row()])
        except Exception as error:
            if conn.closed or conn.broken:
                raise
            LOGGER.exception("callback could not be kept")
            _answer([(arrival, error)])
            return
        self._kept([arrival], new)

    def _kept(self, arrivals: list[Arrival], new: list[int]) -> None:
        # To ring never blocks, so it may come first: who has our 200 finds a worker woken.
        self._ring([Work(WorkKind.CALLBACK, callback_id) for callback_id in new])
        _answer([(arrival, Verdict.KEPT) for arrival in arrivals])
        metrics.callbacks_total.labels("received").inc(len(arrivals))


def merge(rows: list[NewCallback]) -> list[NewCallback]:
    """Equal keys as one row with their number of copies, sorted by key.

    Rows of the plain path are never equal: each is kept as it came.
    """
    merged: dict[tuple[int, bytes], NewCallback] = {}
    plain = []
    for row in rows:
        if row.transaction is None:
            plain.append(row)
            continue
        known = merged.get(row.key)
        merged[row.key] = row if known is None else replace(known, copies=known.copies + 1)
    return plain + [merged[key] for key in sorted(merged)]


def _answer(results: Sequence[tuple[Arrival, Verdict | Exception]]) -> None:
    """Tell each waiter, in its own event loop. One that hung up is passed over."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Arrival, Verdict | Exception]]] = {}
    for arrival, result in results:
        loops.setdefault(arrival.future.get_loop(), []).append((arrival, result))
    for loop, answers in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, answers)
    if tracing.is_on():
        # After the answers, which nothing of a trace may hold up.
        for arrival, result in results:
            _end(arrival, result)


def _trace(arrival: Arrival, owner: TokenOwner | None) -> None:
    """Begin its span, only now: the payment's trace was not known when it came."""
    arrival.span = tracing.span(
        "callback",
        parent=owner.traceparent if owner is not None else None,
        kind="server",
        started_at_ns=arrival.started_at_ns,
        transaction_id=owner.id if owner is not None else None,
    )


def _end(arrival: Arrival, result: Verdict | Exception) -> None:
    outcome = result.value if isinstance(result, Verdict) else type(result).__name__
    arrival.span.set(outcome=outcome)
    arrival.span.end()


def _give_up(future: asyncio.Future[Verdict]) -> None:
    if not future.done():
        future.set_exception(UnavailableError("Postgres is too slow"))


def _resolve(answers: list[tuple[Arrival, Verdict | Exception]]) -> None:
    for arrival, result in answers:
        if arrival.timer is not None:
            arrival.timer.cancel()
        if arrival.future.done():
            continue
        if isinstance(result, Verdict):
            arrival.future.set_result(result)
        elif isinstance(result, UnavailableError):
            arrival.future.set_exception(result)
        else:
            arrival.future.set_exception(UnavailableError("the callback could not be kept"))

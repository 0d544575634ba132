"""Work and its wake-ups. Huey carries a kind and an id, as JSON; the row in Postgres is the work.

A lost message costs time only: the sweeper finds the row. So nothing here retries, schedules or
keeps results, and a message that is not ours is dropped and counted, never unpickled.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import redis
from huey import Huey
from huey.registry import Message
from huey.storage import RedisStorage

from mpesa_gateway.clients import redis_keys
from mpesa_gateway.clients.redis_pool import new_pool
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.failpoint import step
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

QUEUE_NAME = redis_keys.QUEUE_NAME
MAX_MESSAGE_BYTES = 256
# The largest BIGINT of Postgres.
MAX_ROW = 2**63 - 1
# A wake-up that cannot wait here is dropped; its row is found by the sweeper.
MAX_WAITING_WAKEUPS = 10_000
WAKEUP_BATCH = 256
# Longer than huey's own blocking read of one second.
QUEUE_TIMEOUT_S = 4.0
# Between two attempts of a thread to read from a Redis that is away.
OUTAGE_PAUSE_S = 0.5
_TASK_NAME = f"{__name__}.work"


class JsonSerializer:
    """`["callback", 12]` instead of a pickle, which would be code that the worker runs."""

    def serialize(self, message: Message) -> bytes:
        """One message of ours."""
        kind, row = message.args
        return json.dumps([str(kind), int(row)]).encode()

    def deserialize(self, data: bytes) -> Message:
        """The message; one that asks for nothing when it is not ours."""
        arguments = _read_message(data if len(data) <= MAX_MESSAGE_BYTES else b"")
        return Message(str(uuid.uuid4()), _TASK_NAME, None, 0, 0, None, arguments, {})


def _read_message(data: bytes) -> tuple[str, int]:
    """Kind and id; no kind when the message is not ours."""
    try:
        kind, row = json.loads(data)
        if type(row) is int and 0 <= row <= MAX_ROW:
            return WorkKind(kind).value, row
    except (ValueError, TypeError, RecursionError):
        pass
    metrics.queue_messages_rejected_total.inc()
    LOGGER.warning("queue message dropped: it is not ours")
    return "", 0


class WorkQueue(Huey):  # type: ignore[misc]
    """Huey without results, schedules and revocations: a message is one round trip."""

    def __init__(self, url: str) -> None:
        self._outage = _Outage()
        super().__init__(
            QUEUE_NAME,
            results=False,
            serializer=JsonSerializer(),
            storage_class=RedisStorage,
            connection_pool=new_pool(url, timeout_s=QUEUE_TIMEOUT_S),
        )

    def is_revoked(self, *_: Any, **__: Any) -> bool:
        """Never: nothing of ours is revoked."""
        return False

    def delete(self, _: str) -> bool:
        """Nothing is kept, so nothing is deleted."""
        return False

    def read_schedule(self, timestamp: Any = None) -> list[Any]:
        """Nothing is scheduled here: huey's scheduler would ask Redis every second."""
        del timestamp
        return []

    def dequeue(self) -> Any:
        """The next message, None when there is none or Redis does not answer.

        huey would log a traceback for each of its threads and attempts.
        """
        try:
            task = super().dequeue()
        except (redis.RedisError, OSError) as error:
            self._outage.note(error)
            return None
        self._outage.end()
        return task

    def consume(self, run: Callable[[Work], None]) -> None:
        """Call `run` with each message that a consumer of this queue takes."""

        def work(kind: str, row: int) -> None:
            if kind:
                run(Work(WorkKind(kind), row))

        self.task(name="work")(work)

    def push(self, work: list[Work]) -> None:
        """Add several messages in one command. Raises redis.RedisError."""
        messages = [f'["{it.kind.value}", {it.id}]' for it in work]
        self.storage.conn.lpush(self.storage.queue_key, *messages)


class _Outage:
    """Says once that Redis is away, and once that it is back; meanwhile it slows its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since_s: float | None = None

    def note(self, error: Exception) -> None:
        """Redis did not answer. Returns after a pause, so that nobody asks in a loop."""
        with self._lock:
            is_first = self._since_s is None
            if is_first:
                self._since_s = time.monotonic()
        if is_first:
            LOGGER.warning(
                "Redis is away; payments go on, found by the sweeper",
                problem=type(error).__name__,
            )
        time.sleep(OUTAGE_PAUSE_S)

    def end(self) -> None:
        """Redis answered."""
        if self._since_s is None:
            return
        with self._lock:
            since_s, self._since_s = self._since_s, None
        if since_s is not None:
            LOGGER.info("Redis is back", away_s=round(time.monotonic() - since_s, 1))


class Notifier:
    """Notifies workers from a thread of its own, so that nobody waits for Redis."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        # Gets the work that Redis did not take: a worker does it itself.
        self.on_lost: Callable[[list[Work]], None] = lambda _: None
        # Not queue.Queue: its locks, in Python, would be a tenth of a callback's cost.
        self._waiting: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is queued, then end the thread."""
        self._waiting.put(None)
        self._thread.join(timeout=QUEUE_TIMEOUT_S)

    def notify(self, work: list[Work]) -> None:
        """Queue wake-ups for work that is committed. Never blocks and never raises."""
        for it in work:
            if self._waiting.qsize() < MAX_WAITING_WAKEUPS:
                self._waiting.put(it)
            else:
                metrics.wakeups_dropped_total.inc()

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < WAKEUP_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get())
            work = [it for it in batch if it is not None]
            if work:
                self._push(work)
            if None in batch:
                return

    def _push(self, work: list[Work]) -> None:
        try:
            with step("notifier.notify"):
                self._work_queue.push(work)
        except (redis.RedisError, OSError) as error:
            metrics.wakeups_dropped_total.inc(len(work))
            LOGGER.warning(
                "wake-ups lost; the sweeper finds the rows",
                wakeups=len(work),
                problem=type(error).__name__,
            )
            self.on_lost(work)

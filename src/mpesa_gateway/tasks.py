"""Work and its wake-ups. Huey carries a kind and an id, as JSON; the row in Postgres is the work.

A lost message costs time only: the sweeper finds the row. So nothing here retries, schedules or
keeps results, and a message that is not ours is dropped and counted, never unpickled.
"""

from __future__ import annotations

import contextvars
import json
import queue
import threading
import time
import uuid
from typing import Any

import redis
from huey import Huey
from huey.registry import Message
from huey.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.retry import Retry

from mpesa_gateway import metrics
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.failpoint import failpoint, step
from mpesa_gateway.log import begin, get_logger
from mpesa_gateway.services import Services
from mpesa_gateway.usecases.pushes import end_expired_push

LOGGER = get_logger(__name__)

QUEUE_NAME = "mpesa"
MAX_MESSAGE_BYTES = 256
# A wake-up that cannot wait here is dropped; its row is found by the sweeper.
MAX_WAITING_WAKEUPS = 10_000
WAKEUP_BATCH = 256
# Longer than huey's own blocking read of one second.
QUEUE_TIMEOUT_S = 4.0
# A thread goes from webhook to webhook for so long, then looks at the queue, and whether to stop.
CHAIN_S = 1.0
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
        return WorkKind(kind).value, int(row)
    except (ValueError, TypeError, RecursionError):
        metrics.queue_messages_rejected_total.inc()
        LOGGER.warning("queue message dropped: it is not ours")
        return "", 0


class WorkQueue(Huey):  # type: ignore[misc]
    """Huey without results, schedules and revocations: a message is one round trip."""

    def __init__(self, url: str) -> None:
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=QUEUE_TIMEOUT_S,
            socket_connect_timeout=QUEUE_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
        )
        super().__init__(
            QUEUE_NAME,
            results=False,
            serializer=JsonSerializer(),
            storage_class=RedisStorage,
            connection_pool=pool,
        )

    def is_revoked(self, *_: Any, **__: Any) -> bool:
        """Never: nothing of ours is revoked."""
        return False

    def delete(self, _: str) -> bool:
        """Nothing is kept, so nothing is deleted."""
        return False

    def push(self, work: list[Work]) -> None:
        """Add several messages in one command. Raises redis.RedisError."""
        messages = [f'["{it.kind.value}", {it.id}]' for it in work]
        self.storage.conn.lpush(self.storage.queue_key, *messages)


class Bell:
    """Rings workers up without ever waiting for Redis: a thread of its own does."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        # Not queue.Queue: its locks, in Python, would be a tenth of a callback's cost.
        self._waiting: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)

    def start(self) -> None:
        """Begin to ring."""
        self._thread.start()

    def stop(self) -> None:
        """Ring for what waits, then end."""
        self._waiting.put(None)
        self._thread.join(timeout=QUEUE_TIMEOUT_S)

    def ring(self, work: list[Work]) -> None:
        """Announce work, after its commit. Never blocks and never fails."""
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
            with step("bell.ring"):
                self._work_queue.push(work)
        except (redis.RedisError, OSError) as error:
            metrics.wakeups_dropped_total.inc(len(work))
            LOGGER.warning(
                "wake-ups lost; the sweeper finds the rows",
                wakeups=len(work),
                problem=type(error).__name__,
            )


class Tasks:
    """Does work, whoever announced it: a wake-up, the sweeper, or a person."""

    def __init__(self, services: Services, bell: Bell) -> None:
        self._services = services
        self._bell = bell

    def register(self, work_queue: WorkQueue) -> None:
        """Let the queue's consumer call `do`."""

        def work(kind: str, row: int) -> None:
            if kind:
                self.do(Work(WorkKind(kind), row), send_here=True)

        work_queue.task(name="work")(work)

    def do(self, work: Work, *, send_here: bool = False) -> None:
        """Do it, and ring for what follows. Never raises: the row keeps what is not done.

        `send_here`: a webhook that follows goes out in this thread, without a ring: that would
        find another thread, a message and a millisecond later. Not in the sweeper's, whose line
        for callbacks must not wait for endpoints. If this process dies first, the sweeper finds the
        row, as it finds what was rung in vain.
        """
        next_work: Work | None = work
        until = time.monotonic() + CHAIN_S
        while next_work is not None:
            # A context of its own: what its lines say of a payment ends with it.
            following = contextvars.copy_context().run(self._do_alone, next_work)
            goes_on = send_here and time.monotonic() < until
            next_work = _first_webhook(following) if goes_on else None
            self._bell.ring([it for it in following if it is not next_work])

    def _do_alone(self, work: Work) -> list[Work]:
        begin()
        failpoint(f"work.{work.kind.value}.begin")
        try:
            return self._do(work)
        except UnavailableError as error:
            LOGGER.warning("work waits for Postgres", kind=work.kind.value, problem=str(error))
        except Exception:
            LOGGER.exception("work failed", kind=work.kind.value, row=work.id)
            self._count_failure(work)
        return []

    def _do(self, work: Work) -> list[Work]:
        services = self._services
        if work.kind is WorkKind.CALLBACK:
            return services.callbacks.apply(work.id).work
        if work.kind is WorkKind.DELIVERY:
            return services.deliveries.attempt(work.id)
        if work.kind is WorkKind.QUERY:
            return services.queries.ask(work.id).work
        if work.kind is WorkKind.REDELIVERY:
            return services.redeliveries.advance(work.id)
        wait = services.config.query_schedule[0]
        effects = end_expired_push(services.pool, work.id, wait, services.clock())
        return effects.work if effects is not None else []

    def _count_failure(self, work: Work) -> None:
        if work.kind is not WorkKind.CALLBACK:
            return
        try:
            self._services.callbacks.count_failure(work.id)
        except UnavailableError:
            LOGGER.warning("a failure could not be counted", row=work.id)


def _first_webhook(work: list[Work]) -> Work | None:
    return next((it for it in work if it.kind is WorkKind.DELIVERY), None)

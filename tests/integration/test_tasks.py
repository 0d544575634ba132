"""Wake-ups: JSON ids in Redis, a notifier that never waits, a consumer that survives all."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from harness.gateway import Gateway
from harness.waiting import wait_for
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.work_queue import MAX_WAITING_WAKEUPS, Notifier, WorkQueue
from mpesa_gateway.worker.dispatcher import Dispatcher


@pytest.fixture
def work_queue(redis_url: str) -> WorkQueue:
    return WorkQueue(redis_url)


@pytest.fixture
def notifier(work_queue: WorkQueue) -> Iterator[Notifier]:
    made = Notifier(work_queue)
    made.start()
    yield made
    made.stop()


class Recorder:
    """Stands where `Dispatcher.do` is called, and keeps what it was called with."""

    def __init__(self) -> None:
        self.done: list[Work] = []

    def run(self, work: Work, *, send_here: bool = False) -> None:
        assert send_here
        self.done.append(work)


class Consumer:
    """huey's own consumer in this process, without its signal handlers."""

    def __init__(self, work_queue: WorkQueue, recorder: Recorder) -> None:
        Dispatcher.register(recorder, work_queue)  # type: ignore[arg-type]
        self._consumer = work_queue.create_consumer(workers=2, periodic=False)

    def __enter__(self) -> None:
        self._consumer.scheduler.start()
        for _, thread in self._consumer.worker_threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._consumer.stop(graceful=True)


def test_what_workers_are_notified_of_is_done(work_queue: WorkQueue, notifier: Notifier) -> None:
    recorder = Recorder()
    work = [Work(kind, number) for number, kind in enumerate(WorkKind)]
    with Consumer(work_queue, recorder):
        notifier.notify(work)
        wait_for(lambda: len(recorder.done) == len(work))

    assert sorted(recorder.done, key=lambda it: it.id) == work


def test_redis_carries_a_kind_and_an_id_and_nothing_else(
    work_queue: WorkQueue, notifier: Notifier, redis_url: str
) -> None:
    notifier.notify([Work(WorkKind.CALLBACK, 12)])
    with redis.Redis.from_url(redis_url) as client:
        wait_for(lambda: client.llen(work_queue.storage.queue_key) == 1)
        keys = client.keys("*")
        message = client.lindex(work_queue.storage.queue_key, 0)

    assert message == b'["callback", 12]'
    assert keys == [work_queue.storage.queue_key.encode()]


class Exploit:
    """What a pickle in the queue would do to a worker that trusts it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self._path),))


def test_a_crafted_pickle_is_dropped_and_counted_and_the_next_message_is_done(
    work_queue: WorkQueue, notifier: Notifier, redis_url: str, tmp_path: Path
) -> None:
    recorder, trap = Recorder(), tmp_path / "owned"
    hostile = [
        pickle.dumps(Exploit(trap)),
        b"",
        b"\xff",
        b'["callback"]',
        b'["callback", "x"]',
        b'["callback", 1e400]',
        b'["callback", 1.5]',
        b'["callback", true]',
        b'["callback", NaN]',
        b'["callback", -1]',
        b'["callback", 9223372036854775808]',
        b'["shell", 1]',
        b"[" * 100_000,
        b'["callback", 1]' + b" " * 1000,
        b'{"callback": 1}',
        b"null",
    ]
    before = metrics.queue_messages_rejected_total._value.get()
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(work_queue.storage.queue_key, *hostile)
    with Consumer(work_queue, recorder):
        notifier.notify([Work(WorkKind.DELIVERY, 7)])
        wait_for(lambda: recorder.done == [Work(WorkKind.DELIVERY, 7)])
        rejected = metrics.queue_messages_rejected_total
        wait_for(lambda: rejected._value.get() - before == len(hostile))

    assert not trap.exists()


def test_a_bell_without_redis_never_blocks_and_counts_what_it_drops() -> None:
    notifier = Notifier(WorkQueue("redis://127.0.0.1:1/0"))
    notifier.start()
    before = metrics.wakeups_dropped_total._value.get()
    notifier.notify([Work(WorkKind.CALLBACK, number) for number in range(10)])
    notifier.stop()

    assert metrics.wakeups_dropped_total._value.get() - before == 10


def test_a_bell_that_is_behind_drops_instead_of_growing() -> None:
    notifier = Notifier(WorkQueue("redis://127.0.0.1:1/0"))  # never started
    before = metrics.wakeups_dropped_total._value.get()
    notifier.notify([Work(WorkKind.CALLBACK, it) for it in range(MAX_WAITING_WAKEUPS + 5)])

    assert metrics.wakeups_dropped_total._value.get() - before == 5


def test_the_queue_serialises_what_huey_itself_would_enqueue(work_queue: WorkQueue) -> None:
    recorder = Recorder()
    Dispatcher.register(recorder, work_queue)  # type: ignore[arg-type]
    work_queue.push([Work(WorkKind.QUERY, 3)])
    task = work_queue.dequeue()
    work_queue.enqueue(task)
    again = work_queue.dequeue()
    work_queue.execute(again)

    assert recorder.done == [Work(WorkKind.QUERY, 3)]


def test_the_webhook_of_a_payment_that_has_ended_needs_no_other_ring(gateway: Gateway) -> None:
    gateway.pay("254712340000")
    gateway.simulator.wait_until_idle()
    (callback,) = gateway.notifier.take()
    gateway.dispatcher.run(callback, send_here=True)

    assert len(gateway.receiver.requests) == 1
    assert gateway.notifier.take() == []


def test_a_sweeper_only_rings_for_the_webhook(gateway: Gateway) -> None:
    gateway.pay("254712340000")
    gateway.simulator.wait_until_idle()
    gateway.dispatcher.run(*gateway.notifier.take())

    assert gateway.receiver.requests == []
    assert [it.kind for it in gateway.notifier.take()] == [WorkKind.DELIVERY]


def test_an_error_in_a_task_is_logged_and_stays_inside(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (UnavailableError("away"), RuntimeError("a bug")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(type(gateway.services.deliveries), "attempt", fail)
        gateway.dispatcher.run(Work(WorkKind.DELIVERY, 1))

    assert gateway.notifier.take() == []

"""The queue: each key once at a time, at the earliest time that was asked for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mpesa_operator.workqueue import Queue, Turn


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Queue, Clock]:
    clock = Clock()
    return Queue(clock), clock


def test_nothing_is_due_in_an_empty_queue() -> None:
    queue, _ = make()
    assert queue.take() is None
    assert len(queue) == 0


def test_a_key_that_was_asked_for_often_has_one_turn() -> None:
    queue, _ = make()
    for _number in range(5):
        queue.add("a")
    assert queue.take() == Turn("a", fresh=True)
    assert queue.take() is None


def test_a_delay_is_kept_and_the_earlier_wish_wins() -> None:
    queue, clock = make()
    queue.add("a", delay_s=60)
    queue.add("b", delay_s=30)
    queue.add("a", delay_s=10)
    queue.add("a", delay_s=90)
    assert queue.take() is None
    clock.now += 10
    assert queue.take() == Turn("a", fresh=True)
    assert queue.take() is None
    clock.now += 20
    assert queue.take() == Turn("b", fresh=True)


def test_a_light_turn_does_not_put_off_the_reading_of_secrets() -> None:
    queue, clock = make()
    queue.add("a", delay_s=60)
    queue.add("a", fresh=False)
    assert queue.take() == Turn("a", fresh=False)
    queue.done("a")
    assert queue.take() is None
    clock.now += 60
    assert queue.take() == Turn("a", fresh=True)
    assert len(queue) == 0


def test_one_turn_serves_both_wishes() -> None:
    queue, _ = make()
    queue.add("a", fresh=False)
    queue.add("a", fresh=True)
    assert queue.take() == Turn("a", fresh=True)
    queue.done("a")
    assert queue.take() is None


def test_a_key_is_never_taken_twice_at_once() -> None:
    queue, _ = make()
    queue.add("a")
    assert queue.take() == Turn("a", fresh=True)
    queue.add("a")
    queue.add("b")
    assert queue.take() == Turn("b", fresh=True)
    assert queue.take() is None
    queue.done("a")
    assert queue.take() == Turn("a", fresh=True)


def test_a_key_that_was_discarded_has_no_turn() -> None:
    queue, _ = make()
    queue.add("a")
    queue.discard("a")
    queue.discard("never")
    assert queue.take() is None


def test_waiting_ends_when_a_key_is_added_or_due() -> None:
    async def run() -> None:
        queue = Queue(asyncio.get_running_loop().time)
        waiting = asyncio.create_task(queue.next())
        await asyncio.sleep(0)
        queue.add("a")
        assert await waiting == Turn("a", fresh=True)
        queue.add("b", delay_s=0.05, fresh=False)
        assert await asyncio.wait_for(queue.next(), 5) == Turn("b", fresh=False)
        # A key that somebody is at is worth no wake-up until it is done.
        queue.add("a")
        waiting = asyncio.create_task(queue.next())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        queue.done("a")
        assert await asyncio.wait_for(waiting, 5) == Turn("a", fresh=True)

    asyncio.run(run())

"""Threads behind the event loop: shared by merchant, served in turn, never cut off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from mpesa_gateway.api.threads import Threads
from mpesa_gateway.domain.shares import Tenancy
from mpesa_gateway.errors import UnavailableError


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Calls wait for it; set at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def threads(places: int, waiting: int = 0, *, alone: bool = False) -> Threads:
    tenancy = Tenancy.ONE_MERCHANT if alone else Tenancy.MANY
    return Threads(places, "test", waiting=waiting, tenancy=lambda: tenancy)


async def hold(pool: Threads, merchant: str, count: int, release: threading.Event) -> list[bool]:
    """Which of so many calls were taken in."""
    tasks = [asyncio.create_task(pool.run(merchant, release.wait)) for _ in range(count)]
    await asyncio.sleep(0)
    refused = [task.done() and task.exception() is not None for task in tasks]
    assert all(
        isinstance(task.exception(), UnavailableError)
        for task, it in zip(tasks, refused, strict=True)
        if it
    )
    return [not it for it in refused]


def test_calls_of_one_merchant_leave_threads_to_another(release: threading.Event) -> None:
    async def run() -> None:
        pool = threads(8)
        assert (await hold(pool, "hostile", 200, release)).count(True) == 4
        assert await pool.run("victim", lambda: 7) == 7
        release.set()

    asyncio.run(run())


def test_calls_of_a_namespace_s_many_merchants_leave_threads_to_another_namespace_s(
    release: threading.Event,
) -> None:
    async def run() -> None:
        pool = threads(128)
        taken = [await hold(pool, f"hostile/{it}", 128, release) for it in range(50)]
        assert sum(it.count(True) for it in taken) == 85
        assert (await hold(pool, "victim/shop", 50, release)).count(True) == 22
        release.set()

    asyncio.run(run())


def test_a_merchant_that_is_alone_gets_all_threads(release: threading.Event) -> None:
    async def run() -> None:
        assert (await hold(threads(8, alone=True), "only", 9, release)).count(True) == 8
        release.set()

    asyncio.run(run())


def test_the_queue_is_shared_and_served_by_merchant_in_turn(release: threading.Event) -> None:
    async def run() -> None:
        pool, order = threads(1, waiting=16), list[str]()
        first = asyncio.create_task(pool.run("hostile", release.wait))
        await asyncio.sleep(0)
        tasks = [
            asyncio.create_task(pool.run(merchant, partial(order.append, merchant)))
            for merchant in ["hostile"] * 20 + ["victim"] * 2
        ]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, *tasks, return_exceptions=True)
        assert order == ["hostile", "victim"] * 2 + ["hostile"] * 6

    asyncio.run(run())


def test_a_call_that_waits_ends_with_its_request_and_one_that_runs_does_not(
    release: threading.Event,
) -> None:
    async def run() -> None:
        pool, done = threads(1, waiting=4, alone=True), list[str]()

        def call(name: str) -> None:
            release.wait()
            done.append(name)

        calls = {
            name: asyncio.create_task(pool.run("m", partial(call, name)))
            for name in ("runs", "waits", "last")
        }
        await asyncio.sleep(0)
        for name in ("runs", "waits"):
            calls[name].cancel()
        await asyncio.sleep(0)
        release.set()
        await calls["last"]
        assert done == ["runs", "last"]
        assert (pool._running.held_by("m"), pool._places.held_by("m")) == (0, 0)

    asyncio.run(run())

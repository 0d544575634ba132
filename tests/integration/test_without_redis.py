"""Redis that takes no wake-up costs time, and no more with few threads than with many.

Counted in sweeps, not in seconds: one finds everything that is due, and this process does it all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from harness.gateway import Gateway, Gateways
from harness.waiting import wait_for
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.usecases.endpoint_limiter import Slots, threads_for
from mpesa_gateway.work_queue import Notifier, WorkQueue
from mpesa_gateway.worker.dispatcher import Dispatcher
from mpesa_gateway.worker.process import LEAST_THREADS
from mpesa_gateway.worker.sweeper import MAX_LOST_IN_HAND, Sweeper, Webhooks

PAYMENTS = 60
REFUSED = "4000"


@contextmanager
def worker(gateway: Gateway) -> Iterator[Sweeper]:
    """A worker's own parts, on a Redis that is away; it sweeps when it is told to."""
    services = gateway.services
    concurrency = services.config.worker_concurrency
    notifier = Notifier(WorkQueue("redis://127.0.0.1:1/0"))
    dispatcher = Dispatcher(services, notifier)
    deliveries = services.deliveries
    sweeper = Sweeper(
        services.pool,
        dispatcher.run,
        clock=services.clock,
        interval=timedelta(hours=1),
        threads=max(5, concurrency // 2),
        webhooks=Webhooks(
            threads_for(concurrency), deliveries.is_deferred, deliveries.next_deferred
        ),
    )
    dispatcher.hand_over, notifier.on_lost = sweeper.hand_over, sweeper.take_lost
    notifier.start()
    try:
        yield sweeper
    finally:
        sweeper.stop()
        notifier.stop()


def test_up_to_ten_every_concurrency_has_the_same_threads_and_slots() -> None:
    """So their rates are the same, also where endpoints are slow."""
    sizes = {(Slots.of(it), threads_for(it), max(LEAST_THREADS, it // 2)) for it in range(1, 11)}
    assert len(sizes) == 1


@pytest.mark.parametrize("concurrency", [1, 2, 4, 6, 10])
def test_one_sweep_delivers_all_that_is_due(gateways: Gateways, concurrency: int) -> None:
    with gateways.start(worker_concurrency=str(concurrency)) as gateway:
        for number in range(PAYMENTS):
            gateway.initiate(f"2547{number:04d}{REFUSED}")
        gateway.notifier.take()
        gateway.clock.advance(seconds=5)
        with worker(gateway) as sweeper:
            sweeper.sweep()
            wait_for(lambda: len(gateway.receiver.requests) >= PAYMENTS, timeout_s=60)

        assert len(gateway.receiver.requests) == PAYMENTS
        assert gateway.services.deliveries.limiter._running == {}


@pytest.mark.parametrize("concurrency", [1, 10])
def test_one_sweep_applies_a_callback_and_delivers_its_webhook(
    gateways: Gateways, concurrency: int
) -> None:
    with gateways.start(worker_concurrency=str(concurrency)) as gateway:
        gateway.pay("254712340000")
        gateway.simulator.wait_until_idle()
        gateway.notifier.take()
        gateway.clock.advance(seconds=5)
        with worker(gateway) as sweeper:
            sweeper.sweep()
            wait_for(lambda: gateway.receiver.requests)


def test_lost_work_that_would_pile_up_is_left_to_the_next_sweep(gateway: Gateway) -> None:
    done: list[Work] = []
    sweeper = Sweeper(
        gateway.pool, done.append, clock=gateway.clock, interval=timedelta(hours=1), threads=1
    )
    sweeper._in_hand |= {Work(WorkKind.DELIVERY, -it) for it in range(MAX_LOST_IN_HAND)}
    sweeper.take_lost([Work(WorkKind.DELIVERY, 1)])
    sweeper.hand_over([Work(WorkKind.DELIVERY, 2)])
    sweeper.wait()
    sweeper.stop()

    assert done == [Work(WorkKind.DELIVERY, 2)]

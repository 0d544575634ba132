"""Machines whose clocks differ by minutes: every process tells Postgres's time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from prometheus_client import REGISTRY

from harness.clock import Clock
from harness.gateway import CollectingNotifier, Gateway
from harness.receiver import Answer
from harness.waiting import wait_for
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.services import open_services
from mpesa_gateway.store.clock import DatabaseClock
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.worker.dispatcher import Dispatcher
from mpesa_gateway.worker.sweeper import Sweeper

AHEAD_S = 600.0
# What a receiver of Standard Webhooks tolerates.
TOLERANCE_S = 300.0
CLOSE_S = 5.0


def shifted(seconds: float) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(seconds=seconds)


def skew() -> float:
    found = REGISTRY.get_sample_value("mpesa_clock_skew_seconds")
    assert found is not None
    return found


def error_s(clock: Callable[[], datetime]) -> float:
    """How far it is from the real time, which Postgres on this machine tells."""
    return abs((clock() - datetime.now(UTC)).total_seconds())


@contextmanager
def worker_ahead(gateway: Gateway) -> Iterator[Callable[[], None]]:
    """A second worker, whose machine is ten minutes ahead; call it for a round of its sweeper."""
    config = gateway.services.config
    with open_services(config, clock=shifted(AHEAD_S), role="worker") as services:
        services.watch.start()
        notifier = CollectingNotifier()
        dispatcher = Dispatcher(services, notifier)  # type: ignore[arg-type]

        def sweep() -> None:
            services.watch.read_clock()
            sweeper = Sweeper(
                services.pool,
                dispatcher.run,
                clock=services.clock,
                interval=config.sweep_interval,
                threads=2,
            )
            sweeper.sweep()
            sweeper.wait()
            while work := notifier.take():
                for it in work:
                    dispatcher.run(it)

        try:
            yield sweep
        finally:
            services.watch.stop()


def test_a_worker_ten_minutes_ahead_repeats_no_webhook_before_its_time(gateway: Gateway) -> None:
    gateway.receiver.default = Answer(status=500)
    payment = gateway.pay()
    wait_for(lambda: gateway.rows("SELECT 1 FROM callbacks"), what="the callback")
    gateway.work()
    assert len(gateway.receiver.requests) == 1

    with worker_ahead(gateway) as sweep:
        for _ in range(3):
            sweep()

    assert len(gateway.receiver.requests) == 1
    assert gateway.rows("SELECT count(*) AS n FROM webhook_attempts") == [{"n": 1}]
    assert gateway.transaction(payment)["status"] == "COMPLETED"


def test_a_worker_ten_minutes_ahead_signs_with_the_shared_time(gateway: Gateway) -> None:
    gateway.pay()
    wait_for(lambda: gateway.rows("SELECT 1 FROM callbacks"), what="the callback")
    gateway.notifier.take()

    with worker_ahead(gateway) as sweep:

        def told() -> bool:
            sweep()
            return bool(gateway.receiver.requests)

        wait_for(told, what="the webhook")
        (request,) = gateway.receiver.requests
        assert abs(float(request.headers["webhook-timestamp"]) - time.time()) < TOLERANCE_S
        assert skew() == pytest.approx(AHEAD_S, abs=CLOSE_S)


def test_a_worker_ten_minutes_ahead_asks_about_no_payment_before_its_time(gateway: Gateway) -> None:
    silent = "254712344042"
    gateway.pay(silent)

    with worker_ahead(gateway) as sweep:
        for _ in range(3):
            sweep()

    assert gateway.simulator.ledger(phone=silent)["queries"] == []


def test_postgres_time_is_told_and_goes_on_without_it(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    local = Clock()
    local.advance(seconds=-AHEAD_S)
    pool = Pool(database_url, size=1, name="test")
    clock = DatabaseClock(pool, local)
    assert error_s(clock) == pytest.approx(AHEAD_S, abs=CLOSE_S), "nothing was read yet"
    pool.open()

    clock.measure()
    clock.measure()
    assert error_s(clock) < CLOSE_S
    assert skew() == pytest.approx(-AHEAD_S, abs=CLOSE_S)
    assert caplog.text.count("this machine's clock differs from Postgres's") == 1

    before = clock()
    pool.close()
    with pytest.raises(UnavailableError):
        clock.measure()
    # Somebody sets the machine's clock: the time does not follow.
    local.advance(days=1)
    assert before <= clock()
    assert error_s(clock) < CLOSE_S


def test_a_machine_that_agrees_again_is_said_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    local = Clock()
    local.advance(seconds=AHEAD_S)
    pool = Pool(database_url, size=1, name="test")
    pool.open()
    try:
        clock = DatabaseClock(pool, local)
        clock.measure()
        local.restart()
        clock.measure()
        clock.measure()
    finally:
        pool.close()

    assert caplog.text.count("agrees with Postgres's again") == 1
    assert abs(skew()) < CLOSE_S


def test_a_server_with_another_time_is_followed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fail-over: all processes follow, so that they agree with each other."""
    pool = Pool(database_url, size=1, name="test")
    pool.open()
    try:
        clock = DatabaseClock(pool, Clock())
        clock.measure()
        name = database_url.rpartition("/")[2]
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute("CREATE SCHEMA later")
            conn.execute(
                "CREATE FUNCTION later.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
                " RETURN pg_catalog.clock_timestamp() + interval '1 hour'"
            )
            conn.execute(
                f"ALTER DATABASE {name} SET search_path = later, pg_catalog, public".encode()
            )
    finally:
        pool.close()
    moved = Pool(database_url, size=1, name="test")
    moved.open()
    try:
        monkeypatch.setattr(clock, "_pool", moved)
        clock.measure()
    finally:
        moved.close()

    assert error_s(clock) == pytest.approx(3600, abs=CLOSE_S)

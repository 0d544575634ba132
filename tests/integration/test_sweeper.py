"""The sweeper finds what no wake-up announced; what it hands out waits for nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import psycopg
from prometheus_client import CollectorRegistry, generate_latest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.history import write_history
from harness.receiver import Answer
from harness.waiting import wait_for
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.exporters.backlog import BacklogExporter
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.usecases.endpoint_limiter import Endpoint, EndpointLimiter, Slots
from mpesa_gateway.worker.sweeper import PAGE, Sweeper, Webhooks

SILENT = "254712344042"
ENDPOINT = Endpoint("default", "https://shop.example")
# Half of the time after which Postgres ends a wait for a lock.
LOCK_WAIT_S = 5.0


@contextmanager
def sweeping(gateway: Gateway, *, threads: int = 4) -> Iterator[Sweeper]:
    """A real sweeper in the background."""
    sweeper = Sweeper(
        gateway.pool,
        gateway.dispatcher.run,
        clock=gateway.clock,
        interval=timedelta(milliseconds=50),
        threads=threads,
    )
    sweeper.start()
    try:
        yield sweeper
    finally:
        sweeper.stop()


def rescued(stage: str) -> float:
    return float(metrics.sweeper_rescued_total.labels(stage)._value.get())


def test_everything_goes_on_when_every_wake_up_is_lost(gateway: Gateway) -> None:
    """As after FLUSHALL, or with Redis gone for good."""
    before = rescued("callback"), rescued("delivery")
    with sweeping(gateway):
        transaction_id = gateway.pay("254712340000")
        gateway.notifier.take()
        wait_for(lambda: gateway.transaction(transaction_id)["status"] == "COMPLETED")
        wait_for(lambda: gateway.receiver.requests)

    assert rescued("callback") > before[0]
    assert rescued("delivery") > before[1]
    assert len(gateway.receiver.requests) == 1


def test_a_backlog_of_several_pages_is_worked_off_without_waiting(gateway: Gateway) -> None:
    gateway.pay(SILENT)
    path, checkout = gateway.callback_path(SILENT), gateway.checkout_request_id(SILENT)
    gateway.post(path, callback_body(checkout))
    with psycopg.connect(gateway.database_url) as conn:
        conn.execute(
            "INSERT INTO callbacks (transaction_id, by_token, body, body_sha256, received_at,"
            " last_received_at, next_attempt_at) SELECT transaction_id, true, body,"
            " sha256(n::text::bytea), received_at, received_at, received_at"
            " FROM callbacks, generate_series(1, %s) n",
            [2 * PAGE],
        )
    gateway.clock.advance(seconds=5)
    with sweeping(gateway):
        wait_for(lambda: not gateway.rows("SELECT FROM callbacks WHERE state = 'RECEIVED'"))

    outcomes = gateway.rows("SELECT outcome, count(*) FROM callbacks GROUP BY outcome")
    assert {row["outcome"]: row["count"] for row in outcomes} == {
        "completed": 1,
        "duplicate": 2 * PAGE,
    }


def test_safaricom_that_hangs_delays_no_callback(gateway: Gateway) -> None:
    """Every thread that asks Safaricom waits for it; who needs Postgres only goes on."""
    release = threading.Event()
    asked: list[Work] = []

    def do(work: Work) -> None:
        if work.kind is WorkKind.QUERY:
            asked.append(work)
            release.wait(30)
        gateway.dispatcher.run(work)

    for number in range(10, 14):
        gateway.pay(f"2547{number:04d}4042")
    gateway.clock.advance(minutes=2)
    sweeper = Sweeper(
        gateway.pool, do, clock=gateway.clock, interval=timedelta(milliseconds=50), threads=2
    )
    sweeper.start()
    try:
        wait_for(lambda: len(asked) == 2, what="both threads to ask")
        transaction_id = gateway.pay("254712340000")
        gateway.notifier.take()
        wait_for(lambda: gateway.transaction(transaction_id)["status"] == "COMPLETED")
        assert len(asked) == 2
    finally:
        release.set()
        sweeper.stop()


def test_two_sweepers_do_each_thing_once(gateway: Gateway) -> None:
    transactions = [gateway.pay(f"2547{number:04d}0000") for number in range(10, 30)]
    gateway.simulator.wait_until_idle()
    gateway.notifier.take()
    gateway.clock.advance(seconds=5)
    with sweeping(gateway), sweeping(gateway):
        wait_for(lambda: len(gateway.receiver.requests) >= len(transactions))
        wait_for(lambda: not gateway.rows("SELECT FROM deliveries WHERE state = 'PENDING'"))

    assert len(gateway.receiver.requests) == len(transactions)
    events = gateway.rows("SELECT count(*) FROM transaction_events WHERE kind = 'completed'")
    assert events[0]["count"] == len(transactions)


def test_a_row_that_somebody_holds_is_passed_over_at_once(gateway: Gateway) -> None:
    gateway.pay("254712340000")
    gateway.simulator.wait_until_idle()
    (callback,) = gateway.notifier.take()
    assert is_passed_over(gateway, "callbacks", callback)
    gateway.dispatcher.run(callback)
    (delivery,) = gateway.notifier.take()
    assert is_passed_over(gateway, "deliveries", delivery)
    gateway.dispatcher.run(delivery)

    assert len(gateway.receiver.requests) == 1


def is_passed_over(gateway: Gateway, table: str, work: Work) -> bool:
    """Whether a worker leaves the row to who holds it; else it waits for the lock's time-out."""
    worker = threading.Thread(target=gateway.dispatcher.run, args=[work])
    with psycopg.connect(gateway.database_url) as holder:
        holder.execute(f"SELECT FROM {table} FOR UPDATE".encode())
        worker.start()
        worker.join(LOCK_WAIT_S)
        passed_over = not worker.is_alive()
    worker.join()
    return passed_over and gateway.notifier.take() == []


def test_a_sweeper_without_postgres_goes_on_trying(gateway: Gateway) -> None:
    away = Pool("postgresql://postgres@127.0.0.1:1/x", size=2, name="away")
    sweeper = Sweeper(
        away,
        gateway.dispatcher.run,
        clock=gateway.clock,
        interval=timedelta(milliseconds=20),
        threads=1,
        after_round=lambda: None,
    )
    sweeper.start()
    assert sweeper.is_alive()
    sweeper.stop()
    assert not sweeper._thread.is_alive()


def test_a_round_that_raises_is_not_the_last_one(gateway: Gateway) -> None:
    rounds: list[int] = []

    def fail() -> None:
        rounds.append(1)
        raise RuntimeError("a bug")

    sweeper = Sweeper(
        gateway.pool,
        gateway.dispatcher.run,
        clock=gateway.clock,
        interval=timedelta(milliseconds=20),
        threads=1,
        after_round=fail,
    )
    sweeper.start()
    wait_for(lambda: len(rounds) > 2)
    sweeper.stop()


def test_work_in_hand_is_not_offered_twice(gateway: Gateway) -> None:
    gateway.pay("254712340000")
    gateway.simulator.wait_until_idle()
    gateway.clock.advance(seconds=5)
    release, begun = threading.Event(), []

    def hang(work: Work) -> None:
        begun.append(work)
        release.wait(10)

    sweeper = Sweeper(
        gateway.pool, hang, clock=gateway.clock, interval=timedelta(seconds=1), threads=2
    )
    for _ in range(3):
        sweeper.sweep()
    wait_for(lambda: begun)
    release.set()
    sweeper.stop()

    assert len(begun) == 1
    assert not sweeper._offer(Work(begun[0].kind, 999), None)  # it has stopped


def test_one_black_hole_does_not_hold_up_the_others(gateway: Gateway) -> None:
    """Ten webhooks to an endpoint that hangs, then one to another: it arrives at once."""
    hole = threading.Event()

    def swallow(handler: BaseHTTPRequestHandler) -> None:
        hole.wait(20)
        handler.close_connection = True

    gateway.receiver.default = Answer(act=swallow)
    other = gateway.receiver.url.replace("127.0.0.1", "localhost")
    for number in range(10):
        gateway.initiate(f"2547{number:04d}4000")
    threads = [
        threading.Thread(target=gateway.dispatcher.run, args=[work])
        for work in gateway.notifier.take()
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(gateway.receiver.requests) >= 5)
    gateway.receiver.default = Answer(200)
    response = gateway.initiate("254799994000", webhook_url=other)
    started = time.monotonic()
    gateway.work()
    elapsed_s = time.monotonic() - started
    held_up = len(gateway.receiver.requests)
    hole.set()
    for thread in threads:
        thread.join()

    path = f"/transactions/{response.json()['transaction_id']}/deliveries"
    assert gateway.get(path).json()["items"][0]["state"] == "DELIVERED"
    assert elapsed_s < 5
    assert held_up == 6  # five of the black hole, and the other one


def test_a_backlog_of_one_merchant_hides_no_other_s_webhooks_and_queries(
    gateway: Gateway,
) -> None:
    """More than a page of each is older; the first round offers something of everybody."""
    at, url = gateway.clock() - timedelta(days=1), gateway.database_url
    write_history(url, 2 * PAGE, at=str(at), merchant="shops/hostile")
    later = str(at + timedelta(minutes=1))
    write_history(url, 1, first=9000, at=later, merchant="shops/victim")
    with psycopg.connect(gateway.database_url) as conn:
        conn.execute("SET session_replication_role = replica")  # a final row is pending again
        for merchant, minutes in (("shops/hostile", 60), ("shops/victim", 5)):
            due = gateway.clock() - timedelta(minutes=minutes)
            conn.execute(
                "UPDATE deliveries SET state = 'PENDING', finished_at = NULL,"
                " next_attempt_at = %s WHERE merchant = %s",
                [due, merchant],
            )
            conn.execute(
                "UPDATE transactions SET status = 'PENDING', finished_at = NULL, settled_by ="
                " NULL, result_code = NULL, receipt = NULL, next_query_at = %s"
                " WHERE merchant = %s",
                [due, merchant],
            )
    offered: list[Work] = []
    sweeper = Sweeper(
        gateway.pool, offered.append, clock=gateway.clock, interval=timedelta(hours=1), threads=1
    )
    assert sweeper.sweep()
    sweeper.wait()
    sweeper.stop()
    victims = {
        Work(kind, gateway.rows(f"SELECT id FROM {table} WHERE merchant = 'shops/victim'")[0]["id"])
        for kind, table in (
            (WorkKind.DELIVERY, "deliveries"),
            (WorkKind.QUERY, "transactions"),
        )
    }
    assert victims <= set(offered)
    assert len(offered) == 2 * PAGE


def test_a_deferred_delivery_is_left_to_the_limiter(gateway: Gateway) -> None:
    limiter = EndpointLimiter(Slots(fast=1, all=1))
    limiter.try_acquire(ENDPOINT, 1, failing=False)
    assert not limiter.try_acquire(ENDPOINT, 2, failing=False)
    done: list[Work] = []
    sweeper = Sweeper(
        gateway.pool,
        done.append,
        clock=gateway.clock,
        interval=timedelta(seconds=1),
        threads=1,
        webhooks=Webhooks(1, is_deferred=lambda work: limiter.is_deferred(work.id)),
    )
    assert not sweeper._offer(Work(WorkKind.DELIVERY, 2), None)
    assert limiter.release(ENDPOINT) == [2]
    assert sweeper._offer(Work(WorkKind.DELIVERY, 2), None)
    sweeper.stop()

    assert done == [Work(WorkKind.DELIVERY, 2)]


def test_a_delivery_that_is_not_due_any_more_gives_its_slot_to_another(gateway: Gateway) -> None:
    limiter = gateway.services.deliveries.limiter
    for number in range(Slots.of(10).fast):
        assert limiter.try_acquire(Endpoint("default", f"{number}"), -number, failing=False)
    for phone in ("254712340000", "254712350000"):
        gateway.pay(phone)
    gateway.simulator.wait_until_idle()
    for callback in gateway.notifier.take():
        gateway.dispatcher.run(callback)
    first, second = gateway.notifier.take()
    for delivery in (first, second):
        gateway.dispatcher.run(delivery, send_here=True)
    assert gateway.receiver.requests == [], "no slot"
    gateway.execute(
        "UPDATE deliveries SET next_attempt_at = next_attempt_at + interval '1 day' WHERE id = %s",
        first.id,
    )
    assert limiter.release(Endpoint("default", "0")) == [first.id], "one slot"
    gateway.dispatcher.run(first, send_here=True)

    assert len(gateway.receiver.requests) == 1, "the other one used the slot"


def exported(exporter: BacklogExporter) -> str:
    registry = CollectorRegistry()
    registry.register(exporter)
    return generate_latest(registry).decode()


def test_one_elected_process_exports_the_ages(gateway: Gateway) -> None:
    first = BacklogExporter(gateway.pool, gateway.clock)
    second = BacklogExporter(gateway.pool, gateway.clock)
    gateway.pay(SILENT)
    gateway.post("/callback", b"x")
    gateway.clock.advance(seconds=30)
    first.refresh()
    second.refresh()

    text = exported(first)
    assert exported(second) == "\n" or exported(second) == ""
    ages = {
        line.split(" ")[0]: float(line.split(" ")[1])
        for line in text.splitlines()
        if not line.startswith("#")
    }
    assert set(ages) == set(metrics.AGES)
    assert 30 <= ages["mpesa_callback_oldest_unprocessed_age_seconds"] < 40
    assert 30 <= ages["mpesa_transaction_pending_oldest_age_seconds"] < 40
    assert ages["mpesa_webhook_oldest_due_age_seconds"] == 0


def test_the_duty_passes_on_when_its_holder_is_gone(gateway: Gateway) -> None:
    first = BacklogExporter(gateway.pool, gateway.clock)
    second = BacklogExporter(gateway.pool, gateway.clock)
    first.refresh()
    gateway.clock.advance(seconds=16)
    second.refresh()
    first.refresh()

    assert "pending_oldest" in exported(second)
    assert "pending_oldest" not in exported(first)


def test_an_age_that_is_not_fresh_is_not_exported(gateway: Gateway) -> None:
    exporter = BacklogExporter(gateway.pool, gateway.clock)
    exporter.refresh()
    exporter._measured_at -= 21

    assert "pending_oldest" not in exported(exporter)

"""The sweeper finds what no wake-up announced; the gate keeps slow endpoints from taking all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.receiver import Answer
from harness.waiting import wait_for
from mpesa_gateway import metrics
from mpesa_gateway.ages import AgeExporter
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.sweeper import PAGE, Sweeper
from mpesa_gateway.usecases.gate import KEPT_S, SLOW_S, Gate, threads_for

SILENT = "254712344042"
# Half of the time after which Postgres ends a wait for a lock.
LOCK_WAIT_S = 5.0


@contextmanager
def sweeping(gateway: Gateway, *, threads: int = 4) -> Iterator[Sweeper]:
    """A real sweeper in the background."""
    sweeper = Sweeper(
        gateway.pool,
        gateway.tasks.do,
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
        gateway.bell.take()
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
        gateway.tasks.do(work)

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
        gateway.bell.take()
        wait_for(lambda: gateway.transaction(transaction_id)["status"] == "COMPLETED")
        assert len(asked) == 2
    finally:
        release.set()
        sweeper.stop()


def test_two_sweepers_do_each_thing_once(gateway: Gateway) -> None:
    transactions = [gateway.pay(f"2547{number:04d}0000") for number in range(10, 30)]
    gateway.simulator.wait_until_idle()
    gateway.bell.take()
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
    (callback,) = gateway.bell.take()
    assert is_passed_over(gateway, "callbacks", callback)
    gateway.tasks.do(callback)
    (delivery,) = gateway.bell.take()
    assert is_passed_over(gateway, "deliveries", delivery)
    gateway.tasks.do(delivery)

    assert len(gateway.receiver.requests) == 1


def is_passed_over(gateway: Gateway, table: str, work: Work) -> bool:
    """Whether a worker leaves the row to who holds it; else it waits for the lock's time-out."""
    worker = threading.Thread(target=gateway.tasks.do, args=[work])
    with psycopg.connect(gateway.database_url) as holder:
        holder.execute(f"SELECT FROM {table} FOR UPDATE".encode())
        worker.start()
        worker.join(LOCK_WAIT_S)
        passed_over = not worker.is_alive()
    worker.join()
    return passed_over and gateway.bell.take() == []


def test_a_sweeper_without_postgres_goes_on_trying(gateway: Gateway) -> None:
    away = Pool("postgresql://postgres@127.0.0.1:1/x", size=2, name="away")
    sweeper = Sweeper(
        away,
        gateway.tasks.do,
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
        gateway.tasks.do,
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
        threading.Thread(target=gateway.tasks.do, args=[work]) for work in gateway.bell.take()
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


def test_the_gate_lets_a_share_in_and_hands_back_what_it_turned_away() -> None:
    gate = Gate(10)
    inside = [gate.enter("slow", number, failing=False) for number in range(7)]
    assert inside == [True] * 5 + [False] * 2
    assert [gate.enter("quick", number, failing=False) for number in (10, 11, 12, 13)] == [
        True,
        True,
        True,
        False,
    ]
    assert gate.leave("slow") == [5], "one place, and slow has waited longest"
    assert gate.leave("quick") == [13], "the place of 5 is kept, and each endpoint has its turn"
    assert gate.leave("slow") == [6]
    assert gate.leave("slow") == []


def test_one_place_is_offered_to_one_delivery_and_not_to_who_could_not_use_it() -> None:
    gate = Gate(4)
    assert [gate.enter(it, 0, failing=it == "failing") for it in ("failing", "quick")] == [True] * 2
    assert not gate.enter("failing", 1, failing=True)
    assert not gate.enter("quick", 2, failing=False)
    assert not gate.enter("other", 3, failing=False)

    # The failing endpoint waited longest, but its one try is still on its way.
    assert gate.leave("quick") == [2]
    assert gate.enter("quick", 2, failing=False)
    assert gate.leave("quick") == [3]
    assert gate.leave("failing") == [1]
    assert gate.give_up(1) == []
    assert gate.give_up(3) == []
    assert gate._failing == set()


def test_what_waits_at_the_gate_is_remembered_once_and_not_swept_up(gateway: Gateway) -> None:
    gate = Gate(3)
    gate.enter("any", 1, failing=False)
    for _ in range(3):
        assert not gate.enter("any", 2, failing=False)
    assert (gate.remembers(1), gate.remembers(2)) == (False, True)
    done: list[Work] = []
    sweeper = Sweeper(
        gateway.pool,
        done.append,
        clock=gateway.clock,
        interval=timedelta(seconds=1),
        threads=1,
        is_remembered=lambda work: gate.remembers(work.id),
    )
    assert not sweeper._offer(Work(WorkKind.DELIVERY, 2), None)
    assert gate.leave("any") == [2]
    assert not gate.remembers(2)
    assert sweeper._offer(Work(WorkKind.DELIVERY, 2), None)
    sweeper.stop()

    assert done == [Work(WorkKind.DELIVERY, 2)]


def test_what_is_remembered_is_swept_up_once_nobody_is_left_to_send_for_it() -> None:
    gate = Gate(3)
    gate.enter("any", 1, failing=False)
    for delivery in (2, 3):
        assert not gate.enter("any", delivery, failing=False)
    assert gate.remembers(3)
    assert gate.leave("any") == [2]

    # 2 does not come: its ring was lost, or its endpoint is parked. Nobody will leave any more.
    assert not gate.remembers(3)


def test_the_place_of_a_delivery_that_never_comes_is_kept_for_a_moment_only() -> None:
    now = 0.0
    gate = Gate(3, time_s=lambda: now)
    assert gate.enter("any", 1, failing=False)
    assert not gate.enter("other", 2, failing=False)
    assert gate.leave("any") == [2]
    assert not gate.enter("any", 3, failing=False), "the place is kept"
    now += KEPT_S + 0.1

    assert gate.enter("any", 4, failing=False)


def test_a_delivery_that_was_sent_for_in_vain_gives_its_place_to_another(gateway: Gateway) -> None:
    gate, full = gateway.services.deliveries.gate, 0
    while gate._room() > 0:
        assert gate.enter(f"origin {full}", full, failing=False)
        full += 1
    for phone in ("254712340000", "254712350000"):
        gateway.pay(phone)
    gateway.simulator.wait_until_idle()
    for callback in gateway.bell.take():
        gateway.tasks.do(callback)
    first, second = gateway.bell.take()
    for delivery in (first, second):
        gateway.tasks.do(delivery, send_here=True)
    assert gateway.receiver.requests == [], "no room"
    with psycopg.connect(gateway.database_url) as conn:
        conn.execute(
            "UPDATE deliveries SET next_attempt_at = next_attempt_at + interval '1 day'"
            " WHERE id = %s",
            [first.id],
        )
    assert gate.leave("origin 0") == [first.id], "one place"
    gateway.tasks.do(first, send_here=True)

    assert len(gateway.receiver.requests) == 1, "the other one used the place"


def test_tries_that_only_wait_for_a_slow_endpoint_take_nobody_s_turn() -> None:
    now = 0.0
    gate = Gate(10, time_s=lambda: now)
    for origin in ("slow", "slower"):
        assert [gate.enter(origin, it, failing=False) for it in range(4)] == [True] * 4
    assert not gate.enter("quick", 10, failing=False)
    now += SLOW_S

    assert [gate.enter("quick", it, failing=False) for it in range(5)] == [True] * 5
    # One more of each slow one, as before: its share is of all its tries.
    assert [gate.enter("slow", it, failing=False) for it in (20, 21)] == [True, False]


def test_slow_tries_leave_threads_for_callbacks() -> None:
    now, inside = 0.0, 0
    gate = Gate(10, time_s=lambda: now)
    for number in range(100):
        inside += gate.enter(f"origin {number}", number, failing=False)
        now += SLOW_S

    assert inside == threads_for(10) - 2


def test_an_endpoint_that_failed_is_tried_one_at_a_time() -> None:
    gate = Gate(10)

    assert gate.enter("failing", 1, failing=True)
    assert not gate.enter("failing", 2, failing=True)
    assert gate.leave("failing") == [2]
    assert gate.enter("failing", 2, failing=True)


def test_a_worker_with_one_thread_can_deliver() -> None:
    assert Gate(1).enter("any", 1, failing=False)


@pytest.mark.parametrize("origins", [1, 3000])
def test_what_the_gate_remembers_is_bounded(origins: int) -> None:
    gate = Gate(3)
    gate.enter("full", 0, failing=False)
    for number in range(3000):
        gate.enter(f"origin {number % origins}", number, failing=False)

    assert sum(len(waiting) for waiting in gate._waiting.values()) <= 1000


def exported(exporter: AgeExporter) -> str:
    registry = CollectorRegistry()
    registry.register(exporter)
    return generate_latest(registry).decode()


def test_one_elected_process_exports_the_ages(gateway: Gateway) -> None:
    first = AgeExporter(gateway.pool, gateway.clock)
    second = AgeExporter(gateway.pool, gateway.clock)
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
    first = AgeExporter(gateway.pool, gateway.clock)
    second = AgeExporter(gateway.pool, gateway.clock)
    first.refresh()
    gateway.clock.advance(seconds=16)
    second.refresh()
    first.refresh()

    assert "pending_oldest" in exported(second)
    assert "pending_oldest" not in exported(first)


def test_an_age_that_is_not_fresh_is_not_exported(gateway: Gateway) -> None:
    exporter = AgeExporter(gateway.pool, gateway.clock)
    exporter.refresh()
    exporter._measured_at -= 21

    assert "pending_oldest" not in exported(exporter)

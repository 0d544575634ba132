"""Real processes under faults: nothing lost, nothing doubled, and work goes on."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg.rows import dict_row

from daraja_simulator.server import RunningSimulator
from harness.processes import Processes, processes
from harness.receiver import Answer, Receiver
from harness.settings import API_KEY
from harness.waiting import wait_for
from mpesa_gateway.demo.embedded import EmbeddedPostgres
from mpesa_gateway.demo.processes import free_port
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)

pytestmark = pytest.mark.e2e


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def gateway(
    tmp_path: Path,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    port: int,
) -> Iterator[Processes]:
    with processes(
        tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        base_url=simulator.url,
        callback_port=port,
    ) as made:
        yield made


class Witnesses:
    """What three parties saw that the gateway cannot touch, held against its database."""

    def __init__(self, database_url: str, simulator: RunningSimulator, receiver: Receiver) -> None:
        self.database_url = database_url
        self.simulator = simulator
        self.receiver = receiver

    def rows(self, query: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as conn:
            return conn.execute(query.encode()).fetchall()

    def all_told(self) -> bool:
        """Whether everything has ended: no pending payment, no waiting webhook or callback."""
        (row,) = self.rows(
            "SELECT (SELECT count(*) FROM transactions WHERE status = 'PENDING')"
            " + (SELECT count(*) FROM deliveries WHERE state = 'PENDING')"
            " + (SELECT count(*) FROM callbacks WHERE state = 'RECEIVED') AS open"
        )
        return bool(row["open"] == 0)

    def check(self, *, payments: int, repeats_allowed: bool) -> None:
        """The promises: lost = 0, doubled = 0, one end, one delivery, told to the merchant."""
        ledger = self.simulator.ledger()
        debits = collections.Counter(it["checkout_request_id"] for it in ledger["debits"])
        assert set(debits.values()) <= {1}, "charged twice"
        ends = self.rows("SELECT * FROM transactions ORDER BY id")
        assert len(ends) == payments
        completed = {it["checkout_request_id"] for it in ends if it["status"] == "COMPLETED"}
        assert completed == set(debits), "a debit without its payment, or the reverse"
        finals = self.rows(
            "SELECT transaction_id, count(*) FROM transaction_events"
            " WHERE kind IN ('completed', 'failed') GROUP BY transaction_id"
        )
        assert [it["count"] for it in finals] == [1] * payments, "more or less than one end"
        self._check_webhooks(payments, repeats_allowed=repeats_allowed)

    def _check_webhooks(self, payments: int, *, repeats_allowed: bool) -> None:
        told: dict[str, set[tuple[str, bytes]]] = collections.defaultdict(set)
        for request in self.receiver.requests:
            body = request.verify(API_KEY)
            told[body["transaction_id"]].add((request.webhook_id, request.body))
        assert len(told) == payments, "a merchant was not told"
        assert all(len(forms) == 1 for forms in told.values()), "two forms of one webhook"
        if not repeats_allowed:
            assert len(self.receiver.requests) == payments
        attempts = self.rows("SELECT count(*) FROM webhook_attempts")[0]["count"]
        assert attempts >= len(self.receiver.requests), "a request without its attempt row"


@pytest.fixture
def witnesses(database_url: str, simulator: RunningSimulator, receiver: Receiver) -> Witnesses:
    return Witnesses(database_url, simulator, receiver)


def pay_many(
    gateway: Processes, ports: list[int], receiver: Receiver, count: int, *, threads: int = 16
) -> list[str]:
    """Start payments, some of which will be cancelled, from several clients at once."""

    def pay(number: int) -> str:
        digits = "1032" if number % 5 == 0 else "0000"
        response = gateway.initiate(
            ports[number % len(ports)],
            amount="10",
            phone=f"2547{number:04d}{digits}",
            webhook_url=receiver.url,
            idempotency_key=str(uuid.uuid4()),
        )
        assert response.status_code == 201, response.text
        transaction_id: str = response.json()["transaction_id"]
        return transaction_id

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(pay, range(count)))


def test_flushall_while_200_payments_are_in_flight_loses_and_doubles_nothing(
    gateway: Processes,
    simulator: RunningSimulator,
    receiver: Receiver,
    witnesses: Witnesses,
    redis_url: str,
    port: int,
) -> None:
    simulator.change(callback_delay=1.0)
    gateway.api(port)
    gateway.worker(sweep_interval="500ms")
    stopping = threading.Event()

    def flush_again_and_again() -> None:
        with redis.Redis.from_url(redis_url) as client:
            while not stopping.wait(0.05):
                client.flushall()

    flusher = threading.Thread(target=flush_again_and_again)
    flusher.start()
    try:
        pay_many(gateway, [port], receiver, 200)
        wait_for(witnesses.all_told, timeout_s=40)
    finally:
        stopping.set()
        flusher.join()

    witnesses.check(payments=200, repeats_allowed=False)


def test_kill_9_of_the_worker_in_the_middle_ends_every_payment_once(
    gateway: Processes,
    simulator: RunningSimulator,
    receiver: Receiver,
    witnesses: Witnesses,
    port: int,
) -> None:
    simulator.change(callback_delay=0.2)
    receiver.default = Answer(act=slowly)
    gateway.api(port)
    worker = gateway.worker()
    payments = threading.Thread(target=pay_many, args=[gateway, [port], receiver, 120])
    payments.start()
    for number in range(1, 5):
        wait_for(partial(has_received, receiver, 20 * number), timeout_s=30)
        worker.kill()
        worker = gateway.worker()
    payments.join()
    killed_at = time.monotonic()
    wait_for(witnesses.all_told, timeout_s=40)

    assert time.monotonic() - killed_at < 30
    witnesses.check(payments=120, repeats_allowed=True)
    unknown = witnesses.rows("SELECT count(*) FROM webhook_attempts WHERE outcome = 'unknown'")
    assert unknown[0]["count"] > 0, "the kills hit nothing: the test proves nothing"


def has_received(receiver: Receiver, count: int) -> bool:
    return len(receiver.requests) >= count


def slowly(handler: Any) -> None:
    """200 after a moment, so that a kill finds requests on their way."""
    time.sleep(0.05)
    handler.send_response(200)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def test_kill_9_of_the_api_in_the_middle_charges_nobody_twice(
    gateway: Processes,
    simulator: RunningSimulator,
    receiver: Receiver,
    witnesses: Witnesses,
    port: int,
) -> None:
    """Clients repeat their request with the same key until it is answered, as they should."""
    simulator.change(push_delay=0.05, callback_delay=0.5, subscriber_lock=False)
    api = gateway.api(port)
    gateway.worker()
    answered: dict[int, int] = {}

    def pay(number: int) -> None:
        body = {
            "amount": "10",
            "phone": f"2547{number:04d}0000",
            "webhook_url": receiver.url,
            "idempotency_key": str(uuid.UUID(int=number, version=4)),
        }
        give_up = time.monotonic() + 70
        while number not in answered and time.monotonic() < give_up:
            try:
                status = gateway.initiate(port, **body).status_code
            except OSError:
                status = 0
            if status in (201, 503):
                answered[number] = status
            else:
                time.sleep(0.1)

    clients = [threading.Thread(target=pay, args=[number]) for number in range(60)]
    chance = random.Random(7)  # noqa: S311 - a seed, so that the run repeats
    for client in clients:
        client.start()
        if chance.random() < 0.05:
            kill_group(api)
            api = gateway.api(port)
    for client in clients:
        client.join()

    assert len(answered) == 60
    accepted = [it["account_reference"] for it in simulator.ledger()["pushes"] if it["accepted"]]
    phones = collections.Counter(
        it["phone"] for it in simulator.ledger()["pushes"] if it["accepted"]
    )
    assert len(accepted) == len(phones), "two accepted pushes for one key"
    wait_for(lambda: settled(witnesses), timeout_s=60)


def settled(witnesses: Witnesses) -> bool:
    """Every debit that Safaricom made is a COMPLETED payment here, and none is FAILED."""
    debits = {it["phone"] for it in witnesses.simulator.ledger()["debits"]}
    completed = witnesses.rows("SELECT phone FROM transactions WHERE status = 'COMPLETED'")
    called_back = {
        it["phone"] for it in witnesses.simulator.ledger()["callbacks"] if it["status"] == 200
    }
    return debits & called_back == {row["phone"] for row in completed} & called_back


def kill_group(api: Any) -> None:
    """kill -9 of gunicorn's master and its worker."""
    children = Path(f"/proc/{api.pid}/task/{api.pid}/children").read_text().split()
    api.kill()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


def test_two_apis_and_two_workers_and_one_key_from_twenty_clients_is_one_push(
    gateway: Processes,
    simulator: RunningSimulator,
    receiver: Receiver,
    witnesses: Witnesses,
    port: int,
) -> None:
    simulator.change(push_delay=0.2)
    ports = [port, free_port()]
    for it in ports:
        gateway.api(it)
    for _ in range(2):
        gateway.worker()
    body = {
        "amount": "10",
        "phone": "254712340000",
        "webhook_url": receiver.url,
        "idempotency_key": str(uuid.uuid4()),
    }

    def ask(number: int) -> tuple[int, str]:
        give_up = time.monotonic() + 20
        while True:
            response = gateway.initiate(ports[number % 2], **body)
            if response.status_code != 409 or time.monotonic() > give_up:
                return response.status_code, response.text
            assert response.headers["Retry-After"] == "1"
            time.sleep(0.1)

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(ask, range(20)))

    assert len(answers) == 1
    assert answers.pop()[0] == 201
    assert len(simulator.ledger()["pushes"]) == 1
    pay_many(gateway, ports, receiver, 60)
    wait_for(witnesses.all_told, timeout_s=30)
    witnesses.check(payments=61, repeats_allowed=False)
    assert len(simulator.ledger()["tokens"]) == 1, "one token for the whole cluster"


def test_postgres_restarting_is_a_503_and_then_everything_goes_on(
    tmp_path: Path,
    own_directory: Path,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    port: int,
) -> None:
    postgres = EmbeddedPostgres(own_directory)
    postgres.start()
    url = postgres.create_database("gateway")
    apply_migrations(url, load_migrations(migrations_directory()), lambda _: None)
    simulator.change(callback_delay=0.3)
    try:
        with processes(
            tmp_path,
            database_url=url,
            redis_url=redis_url,
            base_url=simulator.url,
            callback_port=port,
        ) as gateway:
            gateway.api(port)
            gateway.worker()
            pay_many(gateway, [port], receiver, 20)
            postgres.stop()
            started = time.monotonic()
            refused = gateway.session.post(
                f"http://127.0.0.1:{port}/callback", data=b"{}", timeout=10
            )
            assert refused.status_code == 503
            assert time.monotonic() - started < 2
            assert gateway.session.get(f"http://127.0.0.1:{port}/livez").status_code == 200
            assert gateway.session.get(f"http://127.0.0.1:{port}/readyz").status_code == 503
            postgres.start()
            wait_for(lambda: gateway.is_ready(port))
            again = Receiver()
            with again:
                pay_many_more(gateway, port, again)
                wait_for(lambda: len(again.requests) == 10, timeout_s=20)
    finally:
        postgres.stop()


def pay_many_more(gateway: Processes, port: int, receiver: Receiver) -> None:
    for number in range(10):
        response = gateway.initiate(
            port,
            amount="10",
            phone=f"2541{number:04d}0000",
            webhook_url=receiver.url,
            idempotency_key=str(uuid.uuid4()),
        )
        assert response.status_code == 201, response.text


@pytest.mark.parametrize("command", ["api", "worker"])
def test_sigterm_ends_a_process_gracefully(gateway: Processes, command: str, port: int) -> None:
    process = gateway.api(port) if command == "api" else gateway.worker()

    assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


def test_a_worker_ends_the_webhook_it_is_at_before_it_stops(
    gateway: Processes, receiver: Receiver, witnesses: Witnesses, port: int
) -> None:
    begun = threading.Event()

    def late(handler: Any) -> None:
        begun.set()
        time.sleep(1.0)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver.default = Answer(act=late)
    gateway.api(port)
    worker = gateway.worker()
    pay_many(gateway, [port], receiver, 1)
    assert begun.wait(15)
    assert worker.stop() == 0

    (row,) = witnesses.rows("SELECT outcome FROM webhook_attempts")
    assert row["outcome"] == "delivered"


def test_readyz_is_503_once_sigterm_came_and_requests_are_still_served(
    gateway: Processes, receiver: Receiver, port: int
) -> None:
    api = gateway.api(port)
    api.send(signal.SIGTERM)
    wait_for(lambda: not gateway.is_ready(port), timeout_s=2)
    response = gateway.initiate(
        port,
        amount="10",
        phone="254712341032",
        webhook_url=receiver.url,
        idempotency_key=str(uuid.uuid4()),
    )

    assert response.status_code == 201
    wait_for(lambda: not api.is_running())
    assert api.exit_status == 0


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_metrics_port_in_use_is_an_error_that_names_the_variable(
    gateway: Processes, command: str, port: int
) -> None:
    api = gateway.api(port, metrics_port=str(free_port()))
    taken = str(port)
    process = gateway.start(command, server_port=str(free_port()), metrics_port=taken)
    wait_for(lambda: not process.is_running())

    assert process.exit_status == 2
    assert f"MPESA_METRICS_PORT {taken} cannot be used" in process.log.read_text()
    assert api.is_running()


def test_metrics_and_liveness_have_a_port_of_their_own(
    gateway: Processes, port: int, receiver: Receiver, witnesses: Witnesses
) -> None:
    ports = {"api": free_port(), "worker": free_port()}
    gateway.api(port, metrics_port=str(ports["api"]))
    gateway.worker(metrics_port=str(ports["worker"]))
    pay_many(gateway, [port], receiver, 5)
    wait_for(witnesses.all_told)

    def scrape(name: str, path: str = "/metrics") -> str:
        return gateway.session.get(f"http://127.0.0.1:{ports[name]}{path}", timeout=5).text

    assert 'mpesa_stk_push_total{outcome="accepted"} 5.0' in scrape("api")
    assert 'mpesa_callbacks_total{outcome="received"} 5.0' in scrape("api")
    worker = scrape("worker")
    assert 'mpesa_webhook_attempts_total{attempt="first",outcome="delivered"} 5.0' in worker
    assert 'mpesa_transactions_total{status="COMPLETED"} 4.0' in worker
    assert "mpesa_callback_lag_seconds_count 5.0" in worker
    wait_for(lambda: "mpesa_transaction_pending_oldest_age_seconds" in scrape("worker"))
    assert scrape("worker", "/livez") == "ok\n"
    assert "/metrics, /livez or /merchants" in scrape("worker", "/other")


def test_no_log_line_shows_a_secret_a_phone_an_id_or_a_token(
    gateway: Processes,
    simulator: RunningSimulator,
    receiver: Receiver,
    witnesses: Witnesses,
    port: int,
) -> None:
    gateway.api(port, log_level="debug")
    gateway.worker(log_level="debug")
    pay_many(gateway, [port], receiver, 10)
    gateway.session.post(f"http://127.0.0.1:{port}/callback/{'0' * 64}", data=b"{", timeout=5)
    wait_for(witnesses.all_told)
    ledger = simulator.ledger()
    secrets = {API_KEY, "test-consumer-secret", "test-passkey-0123456789", "test-consumer-key"}
    phones = {it["phone"] for it in ledger["pushes"]}
    ids = {it["checkout_request_id"] for it in ledger["pushes"]}
    tokens = {it["callback_url"].rsplit("/", 1)[-1] for it in ledger["pushes"]}
    logs = gateway.logs()

    for secret in secrets | phones | ids | tokens:
        assert secret not in logs
    for line in filter(None, logs.splitlines()):
        assert {"event", "level", "timestamp"} <= set(json.loads(line))

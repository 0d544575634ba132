"""Real processes under faults: nothing lost, nothing doubled, and work goes on."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from daraja_simulator.server import RunningSimulator
from harness.processes import Processes, processes
from harness.receiver import Answer, Receiver
from harness.waiting import PROMPTLY_S, wait_for
from harness.witnesses import Witnesses, pay_many
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_devkit.processes import free_port
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


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
            refused = requests.post(f"http://127.0.0.1:{port}/callback", data=b"{}", timeout=10)
            assert refused.status_code == 503
            assert time.monotonic() - started < PROMPTLY_S
            assert requests.get(f"http://127.0.0.1:{port}/livez", timeout=5).status_code == 200
            assert requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 503
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

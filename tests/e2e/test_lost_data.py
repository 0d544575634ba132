"""A database that lost what it had acknowledged: nobody is charged twice, and nothing is silent."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from psycopg.rows import dict_row

from daraja_simulator.server import RunningSimulator
from harness import shell
from harness.lagging import LaggingPostgres, ReplicatedPostgres
from harness.processes import Processes, processes
from harness.receiver import Receiver
from harness.statement import portal_csv
from harness.waiting import wait_for
from mpesa_devkit.processes import free_port

# Each starts processes and servers again and again, beside other suites.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

# Of a loss, from when the database can be reached again.
NOTICED_S = 30.0


@pytest.fixture
def postgres(own_directory: Path) -> Iterator[LaggingPostgres]:
    made = LaggingPostgres(own_directory)
    made.start()
    yield made
    made.server.stop()


@pytest.fixture
def replicated(own_directory: Path) -> Iterator[ReplicatedPostgres]:
    made = ReplicatedPostgres(own_directory)
    made.start()
    yield made
    made.stop()


@dataclass
class World:
    """Two API processes and a worker, their database, and a merchant who repeats its keys."""

    postgres: LaggingPostgres
    gateway: Processes
    simulator: RunningSimulator
    receiver: Receiver
    ports: list[int]
    metrics_ports: list[int]
    sent: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        for port, metrics_port in zip(self.ports, self.metrics_ports, strict=True):
            self.gateway.api(port, metrics_port=str(metrics_port))
        self.gateway.worker()

    def stop(self) -> None:
        for process in self.gateway.running:
            if process.is_running():
                process.stop()

    def body(self) -> dict[str, Any]:
        phone = f"2547{len(self.sent) + 1:04d}0000"
        body = {
            "amount": "10",
            "phone": phone,
            "webhook_url": self.receiver.url,
            "idempotency_key": str(uuid.uuid4()),
        }
        self.sent.append(body)
        return body

    def ask(self, body: dict[str, Any], number: int = 0) -> requests.Response:
        return self.gateway.initiate(self.ports[number % len(self.ports)], **body)

    def pay(self, count: int) -> list[dict[str, Any]]:
        """Payments that were accepted, paid, and told to the merchant."""
        bodies = [self.body() for _ in range(count)]
        for number, body in enumerate(bodies):
            answer = self.ask(body, number)
            assert answer.status_code == 201, answer.text
        wait_for(self.is_all_paid, what="each payment's end")
        return bodies

    def is_all_paid(self) -> bool:
        rows = self.rows("SELECT status FROM transactions")
        return {it["status"] for it in rows} == {"COMPLETED"}

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.postgres.url, row_factory=dict_row) as conn:
            return conn.execute(query.encode(), values).fetchall()

    def repeat_until_answered(self, bodies: list[dict[str, Any]]) -> list[requests.Response]:
        """As a client does after an outage, at once and all together: the same keys again.

        503 `unavailable` is no answer, 503 `recovery` is one.
        """

        def repeat(numbered: tuple[int, dict[str, Any]]) -> requests.Response:
            deadline = time.monotonic() + NOTICED_S
            while True:
                try:
                    # Another process than the one that made it.
                    answer = self.ask(numbered[1], numbered[0] + 1)
                except requests.RequestException:
                    answer = None
                # 409: the first request with this key is still in flight; ask again.
                in_flight = answer is not None and answer.status_code == 409
                if answer is not None and not in_flight and not is_unavailable(answer):
                    return answer
                assert time.monotonic() < deadline, "no answer"
                time.sleep(0.1)

        with ThreadPoolExecutor(len(bodies)) as threads:
            return list(threads.map(repeat, enumerate(bodies)))

    def charged_twice(self) -> list[str]:
        phones = [it["phone"] for it in self.simulator.ledger()["debits"]]
        return [phone for phone in set(phones) if phones.count(phone) > 1]

    def metric(self, name: str) -> list[float]:
        """Of each API process."""
        found = []
        for port in self.metrics_ports:
            text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
            found += [float(it.split()[1]) for it in text.splitlines() if it.startswith(f"{name} ")]
        return found

    def recover(self, *arguments: str) -> dict[str, Any]:
        env = {"MPESA_DATABASE_URL": self.postgres.url}
        command = [sys.executable, "-m", "mpesa_gateway", "recover", "--json", *arguments]
        done = shell.run(*command, env=env)
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def compare(self, directory: Path) -> dict[str, Any]:
        """What the M-PESA statement of all debits has beyond the database."""
        statement = directory / "statement.csv"
        statement.write_text(portal_csv(self.simulator.ledger()["debits"]), encoding="utf-8")
        compared: dict[str, Any] = self.recover("--statement", str(statement))["statement"]
        return compared

    def starts(self, body: dict[str, Any], number: int) -> bool:
        return self.ask(body, number).status_code == 201

    def replays(self, body: dict[str, Any], number: int) -> bool:
        answer = self.ask(body, number)
        return answer.status_code == 201 and answer.headers.get("Idempotent-Replayed") == "true"

    def is_held_everywhere(self) -> None:
        """Each process looks for itself, one after the other."""
        ports = len(self.metrics_ports)
        wait_for(lambda: self.metric("mpesa_recovery_hold") == [1.0] * ports, what="the hold")

    def is_paid_again(self) -> None:
        """New payments start, at every process."""
        for number in range(len(self.ports)):
            body = self.body()
            wait_for(partial(self.starts, body, number), timeout_s=10, what="a payment")


def is_unavailable(answer: requests.Response) -> bool:
    return answer.status_code == 503 and answer.json()["type"].endswith("/unavailable")


def is_held(answer: requests.Response) -> bool:
    return (
        answer.status_code == 503
        and answer.json()["type"].endswith("/recovery")
        and int(answer.headers["Retry-After"]) > 0
    )


@pytest.fixture
def world(
    tmp_path: Path,
    postgres: LaggingPostgres,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> Iterator[World]:
    with running(tmp_path, postgres, redis_url, simulator, receiver) as made:
        yield made


@contextmanager
def running(
    directory: Path,
    postgres: LaggingPostgres,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> Iterator[World]:
    ports = [free_port(), free_port()]
    with processes(
        directory,
        database_url=postgres.url,
        redis_url=redis_url,
        base_url=simulator.url,
        callback_port=ports[0],
    ) as gateway:
        made = World(postgres, gateway, simulator, receiver, ports, [free_port(), free_port()])
        made.start()
        yield made


def test_an_asynchronous_fail_over_debits_nobody_twice_and_is_repaired(world: World) -> None:
    world.pay(2)
    world.postgres.restart()
    wait_for(lambda: all(map(world.gateway.is_ready, world.ports)), what="a plain restart")
    world.is_paid_again()
    lost = world.pay(6)
    # The replica stands where the server was restarted.
    lost_count = len(world.sent) - 2

    world.postgres.fail_over()
    answers = world.repeat_until_answered(lost)

    assert world.charged_twice() == []
    wait_for(lambda: sum(world.metric("mpesa_acknowledged_lost_total")) > 0, timeout_s=NOTICED_S)
    world.is_held_everywhere()
    # Whoever was early was held; once the rows are written again, keys replay as ever.
    assert all(it.status_code == 201 or is_held(it) for it in answers), [it.text for it in answers]
    for number, body in enumerate(lost):
        wait_for(partial(world.replays, body, number), what="the replay")
    wait_for(world.is_all_paid, what="each payment's end")
    assert len(world.rows("SELECT id FROM transactions")) == len(world.sent)
    assert is_held(world.ask(world.body()))

    report = world.recover()
    assert report["held"]
    assert report["lost"]["payment"] == {"written_again": lost_count, "not_written_again": 0}
    world.recover("--accept", "--by", "wanjiru", "--reason", "compared with the statement")
    world.is_paid_again()
    assert not world.recover()["held"]
    assert world.charged_twice() == []


def test_a_fail_over_to_a_replica_three_seconds_behind_leaves_no_debit_unknown(
    tmp_path: Path,
    replicated: ReplicatedPostgres,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    with running(tmp_path, replicated, redis_url, simulator, receiver) as world:
        world.pay(2)
        replicated.cut_off()
        lost = world.pay(4)
        wait_for(lambda: replicated.lag_s() >= 3, what="the lag")

        replicated.fail_over()
        world.repeat_until_answered(lost)

        assert world.charged_twice() == []
        for number, body in enumerate(lost):
            wait_for(partial(world.replays, body, number), what="the replay")
        wait_for(world.is_all_paid, what="each payment's end")
        assert is_held(world.ask(world.body()))
        compared = world.compare(tmp_path)
        assert compared["open"] == []
        assert compared["matched"] == len(world.simulator.ledger()["debits"]) == 6
        # Merchants had been told. What the worker lists, or tells again, has the same webhook-id.
        again = {world.ask(body).json()["transaction_id"] for body in lost}
        assert {it["payment"] for it in world.recover()["lost_webhooks"]} <= again
        assert len({it.webhook_id for it in world.receiver.requests}) == 6


def test_a_restore_under_running_processes_is_held_and_written_again(
    world: World, tmp_path: Path
) -> None:
    world.pay(2)
    world.postgres.dump(tmp_path / "dump")
    lost = world.pay(4)

    world.postgres.restore(tmp_path / "dump")
    world.repeat_until_answered(lost)

    assert world.charged_twice() == []
    for number, body in enumerate(lost):
        wait_for(partial(world.replays, body, number), what="the replay")
    world.is_held_everywhere()
    assert is_held(world.ask(world.body()))


def test_processes_that_start_on_a_restored_database_hold_and_the_statement_has_the_rest(
    world: World, tmp_path: Path
) -> None:
    """Nobody remembers in memory; Redis has the mark."""
    world.pay(2)
    world.postgres.dump(tmp_path / "dump")
    lost = world.pay(3)
    # The mark is written each second.
    time.sleep(2.5)
    world.stop()
    world.postgres.restore(tmp_path / "dump")
    world.start()

    answers = world.repeat_until_answered(lost)

    assert all(map(is_held, answers))
    assert world.charged_twice() == []
    assert sum(world.metric("mpesa_acknowledged_lost_total")) > 0
    # Safaricom repeats the callback of one: an orphan, answered 200.
    *known, orphan, second, third = world.simulator.ledger()["callbacks"]
    answer = requests.post(orphan["callback_url"], data=orphan["body"], timeout=10)
    assert answer.status_code == 200
    assert world.recover()["orphans"] == 1
    compared = world.compare(tmp_path)
    assert (compared["matched"], compared["orphans"]) == (len(known), 1)
    receipts = {it["checkout_request_id"]: it["receipt"] for it in debits(world)}
    assert {(it["receipt"], it["finding"]) for it in compared["open"]} == {
        (receipts[it["checkout_request_id"]], "missing") for it in (second, third)
    }
    assert world.recover("--accept", "--by", "wanjiru", "--reason", "refunded")["held"] is False
    world.is_paid_again()


def test_an_operators_hold_survives_the_restore_that_it_was_for(
    world: World, tmp_path: Path
) -> None:
    """Without Redis: the processes that obey the hold write it to whatever database they meet."""
    world.postgres.dump(tmp_path / "dump")
    world.recover("--hold", "--by", "wanjiru", "--reason", "the restore of tonight")
    world.is_held_everywhere()
    assert is_held(world.ask(world.body()))

    world.postgres.restore(tmp_path / "dump")

    wait_for(lambda: bool(held(world)), what="the hold in the restored database")
    assert "tonight" in held(world)[0]["reason"]
    assert is_held(world.ask(world.body(), 1))
    world.recover("--accept", "--by", "wanjiru", "--reason", "done")
    world.is_paid_again()


def debits(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.simulator.ledger()["debits"]
    return found


def held(world: World) -> list[dict[str, Any]]:
    try:
        return world.rows("SELECT * FROM recovery_holds WHERE accepted_at IS NULL")
    except psycopg.Error:
        return []


def test_nothing_is_held_without_loss(world: World) -> None:
    """A restart, a fail-over to a replica that has everything, and vacuum in between."""
    world.pay(2)
    world.postgres.restart()
    world.is_paid_again()
    world.postgres.fail_over(lossy=False)
    world.is_paid_again()
    with psycopg.connect(world.postgres.url, autocommit=True) as conn:
        conn.execute("VACUUM FULL")
    world.is_paid_again()
    world.stop()
    world.start()
    world.is_paid_again()

    assert world.recover()["holds"] == []
    assert world.metric("mpesa_acknowledged_lost_total") == [0.0, 0.0]
    assert world.charged_twice() == []

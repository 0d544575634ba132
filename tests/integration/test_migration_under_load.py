"""001 to the newest while payments are made: nobody waits long, nothing fails, nothing deadlocks.

The release before is played by this one on the older schema: the columns and tables that its code
names are there already, all else that migrations make is taken away and made again under load.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest

from daraja_simulator.server import RunningSimulator
from harness.history import write_history
from harness.processes import Processes, processes
from harness.receiver import Receiver
from harness.waiting import wait_for
from mpesa_gateway.demo.processes import free_port
from mpesa_gateway.store.migrations import (
    Migration,
    Patience,
    apply_migrations,
    load_migrations,
    migrations_directory,
)

# What a callback may wait at most; the API answers 503 after that.
BOUND_S = 2.0
PAYERS = 3
PAUSE_S = 0.05
# Ended payments that are there already.
HISTORY = 5_000
# A backup or a report: it reads every table and stays open.
READ_S = 3.0
TABLES = ("transactions", "callbacks", "deliveries", "webhook_attempts")
BACK_TO_001 = """
    ALTER TABLE callbacks DROP CONSTRAINT callbacks_traceparent;
    ALTER TABLE transactions DROP CONSTRAINT transactions_traceparent;
    ALTER TABLE deliveries DROP CONSTRAINT deliveries_traceparent;
    DROP TABLE redelivery_items, retention_passes;
    DROP INDEX deliveries_undelivered, redeliveries_open;
    DROP FUNCTION guard_callback_body CASCADE;
    DROP FUNCTION guard_attempt CASCADE;
    DELETE FROM schema_migrations WHERE version > 1;
"""


def as_for_the_release_before() -> list[Migration]:
    """The project's migrations; what the code of this release names may be there already."""
    first, *later = load_migrations(migrations_directory())
    found = [first]
    for it in later:
        sql = it.sql.replace("ADD COLUMN", "ADD COLUMN IF NOT EXISTS")
        found.append(replace(it, sql=sql.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")))
    return found


@dataclass
class Payers:
    """Clients that pay, one payment after the other, and keep what they were answered."""

    gateway: Processes
    port: int
    webhook_url: str
    answers: list[int] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def pay_on(self, payer: int) -> None:
        number = 0
        while not self.stopping.wait(PAUSE_S):
            number += 1
            answer = self.gateway.initiate(
                self.port,
                amount="10",
                phone=f"2547{payer}{number:03d}0000",
                webhook_url=self.webhook_url,
                idempotency_key=str(uuid.uuid4()),
            )
            self.answers.append(answer.status_code)


@contextmanager
def paying(payers: Payers) -> Iterator[None]:
    threads = [threading.Thread(target=payers.pay_on, args=[it]) for it in range(PAYERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        payers.stopping.set()
        for thread in threads:
            thread.join()


@dataclass
class Watch:
    """Looks in Postgres who of the gateway waits for a lock, and for how long."""

    url: str
    longest_s: float = 0.0
    looks: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            while not self.stopping.wait(0.05):
                row = conn.execute(
                    "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)"
                    " FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND application_name LIKE 'mpesa-gateway%' AND datname = current_database()"
                ).fetchone()
                assert row is not None
                self.longest_s = max(self.longest_s, float(row[0]))
                self.looks += 1


@contextmanager
def watching(url: str) -> Iterator[Watch]:
    watch = Watch(url)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield watch
    finally:
        watch.stopping.set()
        thread.join()


@contextmanager
def a_report_is_read(url: str) -> Iterator[None]:
    """Somebody's long transaction, which every ALTER TABLE must wait for."""
    with psycopg.connect(url) as conn:
        for table in TABLES:
            conn.execute(f"SELECT max(id) FROM {table}".encode())
        timer = threading.Timer(READ_S, conn.rollback)
        timer.start()
        yield
        timer.join()


@dataclass
class World:
    """A gateway on the schema of 001, and its clients."""

    url: str
    gateway: Processes
    payers: Payers
    receiver: Receiver

    def go_back(self) -> None:
        """To the schema of the release before; a table at a time, because payments go on."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            for statement in BACK_TO_001.split(";"):
                conn.execute(statement.encode())

    def count(self, what: str) -> int:
        with psycopg.connect(self.url) as conn:
            row = conn.execute(f"SELECT count(*) FROM {what}".encode()).fetchone()
            assert row is not None
            return int(row[0])


@pytest.fixture
def world(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    tmp_path: Path,
) -> Iterator[World]:
    port = free_port()
    write_history(database_url, HISTORY)
    with processes(
        tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        base_url=simulator.url,
        callback_port=port,
    ) as gateway:
        gateway.api(port)
        gateway.worker()
        made = World(database_url, gateway, Payers(gateway, port, receiver.url), receiver)
        made.go_back()
        yield made


@pytest.mark.slow
def test_payments_go_on_while_the_schema_is_migrated(world: World) -> None:
    said: list[str] = []
    with watching(world.url) as watch, paying(world.payers):
        wait_for(lambda: len(world.payers.answers) >= 10)
        with a_report_is_read(world.url):
            applied = apply_migrations(world.url, as_for_the_release_before(), said.append)
        done = len(world.payers.answers)
        wait_for(lambda: len(world.payers.answers) >= done + 10)
        assert watch.looks > 20
        assert watch.longest_s < BOUND_S

        # What a runner does that waits as long as it takes: the watch must see it.
        world.go_back()
        with a_report_is_read(world.url):
            stubborn = Patience(lock_ms=60_000)
            apply_migrations(
                world.url, as_for_the_release_before(), lambda _: None, patience=stubborn
            )
    assert watch.longest_s > BOUND_S

    assert [it.version for it in applied] == list(range(2, len(applied) + 2))
    assert any("got no lock" in line for line in said), said
    paid = len(world.payers.answers)
    assert set(world.payers.answers) == {201}
    wait_for(lambda: world.count("transactions WHERE status = 'PENDING'") == 0)
    wait_for(lambda: len(world.receiver.requests) == paid)
    assert world.count("callbacks WHERE state = 'APPLIED'") == paid + HISTORY
    assert world.count("pg_stat_database WHERE datname = current_database() AND deadlocks > 0") == 0
    levels = [json.loads(it)["level"] for it in world.gateway.logs().splitlines() if it[:1] == "{"]
    assert set(levels) == {"info"}

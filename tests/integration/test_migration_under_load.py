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
from mpesa_devkit.processes import free_port
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
TABLES = ("transactions", "callbacks", "deliveries", "webhook_attempts", "transaction_events")
# Warnings of every start on such a machine.
AT_START = {"the database is not as durable as it could be", "unsafe setting"}
BACK_TO_001 = """
    ALTER TABLE callbacks DROP CONSTRAINT callbacks_traceparent;
    ALTER TABLE transactions DROP CONSTRAINT transactions_traceparent;
    ALTER TABLE deliveries DROP CONSTRAINT deliveries_traceparent;
    DROP TABLE redelivery_items, retention_passes;
    DROP INDEX deliveries_undelivered, redeliveries_open;
    DROP TABLE callback_reveals;
    DROP TABLE merchant_adoptions;
    DROP INDEX recovery_holds_open;
    DROP INDEX deliveries_of_merchant_due;
    DROP INDEX transactions_of_merchant_to_query;
    DROP FUNCTION guard_callback_body CASCADE;
    DROP FUNCTION guard_attempt CASCADE;
    DROP FUNCTION guard_payment_key CASCADE;
    DROP FUNCTION refuse_known_key CASCADE;
    DROP FUNCTION refuse_known_receipt CASCADE;
    DROP FUNCTION refuse_to_forget CASCADE;
    DROP INDEX callbacks_of_payment, conflicts_of_callback;
    ALTER TABLE transactions DROP CONSTRAINT order_id_length;
    DROP INDEX transactions_open_order, transactions_by_order, payment_keys_paid_order;
    DELETE FROM schema_migrations WHERE version > 1;
"""
# In one transaction: at each moment there is a table of that name. Dropping a foreign key locks
# what it names, too, and payments lock that first.
EVENTS_IN_ONE_TABLE = """
    LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE transaction_events DETACH PARTITION transaction_events_first;
    DROP TABLE transaction_events;
    ALTER TABLE transaction_events_first RENAME TO transaction_events;
    ALTER TABLE transaction_events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;
    SELECT setval('transaction_events_id_seq', max(id)) FROM transaction_events;
    ALTER TABLE transaction_events DROP CONSTRAINT transaction_events_first,
        DROP CONSTRAINT transaction_events_first_pkey, ADD PRIMARY KEY (id);
    CREATE INDEX transaction_events_of_transaction ON transaction_events (transaction_id, id);
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON transaction_events
        FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""
# The release before counts no months, so nobody does here.
NO_MONTHS = "INSERT INTO elections VALUES ('months', 'nobody', 'infinity')"


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
def a_report_is_read(url: str, for_s: float = READ_S) -> Iterator[None]:
    """Somebody's long transaction, which every ALTER TABLE must wait for."""
    with psycopg.connect(url) as conn:
        for table in TABLES:
            conn.execute(f"SELECT max(id) FROM {table}".encode())
        timer = threading.Timer(for_s, conn.rollback)
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
            conn.execute(EVENTS_IN_ONE_TABLE.encode())
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
    with psycopg.connect(database_url) as conn:
        conn.execute(NO_MONTHS)
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
        with a_report_is_read(world.url, 2 * READ_S):
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
    assert world.count("transaction_events WHERE kind = 'completed'") == paid + HISTORY
    assert world.count("transaction_events_default") == 0
    assert world.count("pg_stat_database WHERE datname = current_database() AND deadlocks > 0") == 0
    lines = [json.loads(it) for it in world.gateway.logs().splitlines() if it[:1] == "{"]
    assert {it["event"] for it in lines if it["level"] != "info"} <= AT_START

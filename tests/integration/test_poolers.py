"""PgBouncer in front of Postgres: all works in transaction mode, and nothing of ours leaks."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from daraja_simulator.server import RunningSimulator
from harness.gateway import Gateway, open_gateway
from harness.pooler import PgBouncer
from harness.receiver import Receiver
from harness.waiting import wait_for
from mpesa_gateway.errors import SchemaError, UnavailableError
from mpesa_gateway.store.connection_errors import why_not
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrate,
    migrations_directory,
)
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.session import SETTINGS, Session

# The last four digits choose the outcome.
ENDINGS = {"254712340000": "COMPLETED", "254712341032": "FAILED", "254712340001": "FAILED"}
MODES = ("transaction", "session")
WRITTEN = ("transactions", "callbacks", "deliveries", "webhook_attempts", "transaction_events")


@contextmanager
def pooler(directory: Path, database_url: str, *, mode: str, size: int = 3) -> Iterator[PgBouncer]:
    running = PgBouncer(directory, database_url, mode=mode, size=size)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def pooled(own_directory: Path, database_url: str) -> Iterator[PgBouncer]:
    """In transaction mode, with fewer connections to Postgres than a process would take."""
    with pooler(own_directory, database_url, mode="transaction") as running:
        yield running


@contextmanager
def gateway_through(
    running: PgBouncer,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> Iterator[Gateway]:
    with open_gateway(running.url, redis_url, simulator, receiver) as gateway:
        # What a test looks at comes straight from Postgres.
        gateway.database_url = database_url
        yield gateway


def settle(gateway: Gateway, payments: dict[str, str]) -> dict[str, str]:
    """The state of each payment once nothing is pending any more."""

    def ended() -> dict[str, str]:
        gateway.work()
        states = {it: gateway.transaction(it)["status"] for it in payments}
        return {} if "PENDING" in states.values() else states

    return wait_for(ended, timeout_s=30, what="the payments' ends")


@pytest.mark.parametrize("mode", MODES)
def test_payments_of_every_ending(
    mode: str,
    own_directory: Path,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    # In session mode each of our connections keeps one of the pooler's.
    size = 3 if mode == "transaction" else 30
    with (
        pooler(own_directory, database_url, mode=mode, size=size) as running,
        gateway_through(running, database_url, redis_url, simulator, receiver) as gateway,
    ):
        payments = {gateway.pay(phone): ending for phone, ending in ENDINGS.items()}
        assert settle(gateway, payments) == payments

        assert gateway.rows("SELECT state FROM callbacks GROUP BY state") == [{"state": "APPLIED"}]
        assert len(receiver.requests) == len(payments)
        found = gateway.get("/transactions", limit=10).json()["items"]
        assert {it["transaction_id"]: it["status"] for it in found} == payments


def test_two_processes_share_its_connections(
    pooled: PgBouncer,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    """Each numbers its prepared statements alike; run by the other they would be another update."""
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(
                gateway_through(pooled, database_url, redis_url, simulator, receiver)
            )
            for _ in range(2)
        ]

        def pay(number: int) -> str:
            # Reads in between, so that the two do not number the same statement alike.
            gateway = gateways[number % 2]
            if number % 3 == 0:
                gateway.get("/transactions", limit=5)
            return gateway.pay(f"25471{number:03d}0000")

        with ThreadPoolExecutor(8) as threads:
            payments = dict.fromkeys(threads.map(pay, range(40)), "COMPLETED")

        def all_kept() -> bool:
            rows = gateways[0].rows("SELECT count(*) AS n FROM callbacks")
            return bool(rows[0]["n"] >= len(payments))

        wait_for(all_kept, what="every callback")
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(Gateway.work, gateways))
        assert settle(gateways[0], payments) == payments
        assert len(simulator.ledger()["pushes"]) == len(payments)


def watch_settings(gateway: Gateway) -> None:
    """Note how every row is committed, whoever writes it."""
    gateway.execute("CREATE TABLE seen (who text, sync text, zone text, patience text)")
    gateway.execute(
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO seen VALUES (tg_table_name, current_setting('synchronous_commit'),"
        " current_setting('timezone'), current_setting('statement_timeout')); RETURN NULL; END $$"
    )
    for table in WRITTEN:
        gateway.execute(
            f"CREATE CONSTRAINT TRIGGER see AFTER INSERT OR UPDATE ON {table}"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see()"
        )


def test_a_weak_role_does_not_weaken_a_commit(
    pooled: PgBouncer,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
        conn.execute(f"ALTER DATABASE {name} SET timezone = 'Africa/Nairobi'".encode())
    with gateway_through(pooled, database_url, redis_url, simulator, receiver) as gateway:
        watch_settings(gateway)
        payments = {gateway.pay(phone): ending for phone, ending in ENDINGS.items()}
        assert settle(gateway, payments) == payments

        seen = gateway.rows(
            # Of a table with months, the trigger stands on each of them.
            "SELECT DISTINCT regexp_replace(who, '_first$', '') AS who, sync, zone, patience"
            " FROM seen ORDER BY who"
        )
        assert seen == [
            {"who": who, "sync": "on", "zone": "UTC", "patience": "10s"} for who in sorted(WRITTEN)
        ]
        assert all(it["created_at"].endswith("Z") for it in map(gateway.transaction, payments))


def test_nothing_of_ours_is_left_on_the_poolers_connections(
    pooled: PgBouncer,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    names = [*SETTINGS, "plan_cache_mode", "enable_seqscan"]
    ask = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    with psycopg.connect(database_url) as conn:
        untouched = conn.execute(ask.encode()).fetchone()
    apply_migrations(pooled.url, load_migrations(migrations_directory()), lambda _: None)
    with gateway_through(pooled, database_url, redis_url, simulator, receiver) as gateway:
        payments = {gateway.pay(phone): ending for phone, ending in ENDINGS.items()}
        assert settle(gateway, payments) == payments
        with ExitStack() as stack:
            # Each holds one server connection, so that together they see all of them.
            others = [stack.enter_context(psycopg.connect(pooled.url)) for _ in range(3)]
            found = [other.execute(ask.encode()).fetchone() for other in others]
            prepared = [
                other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
                for other in others
            ]
        assert found == [untouched] * 3
        assert prepared == [(0,)] * 3
        assert gateway.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []


def test_migrations_at_once_apply_each_file_once(
    own_directory: Path, empty_database_url: str
) -> None:
    migrations = load_migrations(migrations_directory())
    said: list[str] = []
    with pooler(own_directory, empty_database_url, mode="transaction") as running:
        threads = [
            threading.Thread(target=apply_migrations, args=[running.url, migrations, said.append])
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)
        applied = [line for line in said if line.startswith("applying")]
        assert len(applied) == len(set(applied)) == len(migrations)

        # Somebody's long transaction is on the connection that the last one used.
        with psycopg.connect(running.url) as busy:
            busy.execute("SELECT 1")
            assert apply_migrations(running.url, migrations, said.append) == []


def test_a_migration_through_it_has_no_time_limit_of_the_role(
    own_directory: Path, empty_database_url: str
) -> None:
    name = empty_database_url.rpartition("/")[2]
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(
            f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = 100".encode()
        )
    migrations = load_migrations(migrations_directory())
    with pooler(own_directory, empty_database_url, mode="transaction") as running:
        assert len(apply_migrations(running.url, migrations, lambda _: None)) == len(migrations)


def test_a_pooler_with_one_connection_is_too_small_for_a_migration_and_says_so(
    own_directory: Path, empty_database_url: str
) -> None:
    running = PgBouncer(own_directory, empty_database_url, mode="transaction", size=1, wait_s=2)
    try:
        with pytest.raises(UnavailableError, match="a pooler without a free connection"):
            migrate(
                running.url, load_migrations(migrations_directory()), lambda _: None, deadline_s=5
            )
    finally:
        running.stop()


def test_a_migration_that_fails_is_a_sentence(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE transactions (of text)")
    with pytest.raises(SchemaError, match=r"DuplicateTable.*nothing of its file was applied"):
        migrate(
            empty_database_url,
            load_migrations(migrations_directory()),
            lambda _: None,
            deadline_s=5,
        )


def test_statement_mode_is_refused(own_directory: Path, database_url: str) -> None:
    with pooler(own_directory, database_url, mode="statement") as running:
        pool = Pool(running.url, size=2, name="test")
        pool.open()
        try:
            with pytest.raises(UnavailableError), pool.connection("test", 2.0) as conn:
                conn.execute("SELECT 1")
        finally:
            pool.close()
        assert why_not(running.url).endswith(
            "a pooler in statement mode; set pool_mode = transaction"
        )


def test_a_direct_connection_keeps_its_settings_for_the_session(database_url: str) -> None:
    """Nothing is added to a statement there: each round trip is time of an answer."""
    pool = Pool(database_url, size=1, name="test")
    pool.open()
    try:
        with pool.connection("test") as conn:
            assert isinstance(conn, Session)
            assert not conn.is_pooled
            assert conn.execute("SHOW statement_timeout").fetchone() == ("10s",)
            began = conn.execute("SELECT now()").fetchone()
            assert conn.execute("SELECT now()").fetchone() != began
    finally:
        pool.close()


def test_a_statement_that_fails_leaves_the_connection_usable(pooled: PgBouncer) -> None:
    pool = Pool(pooled.url, size=1, name="test")
    pool.open()
    key = {"name": "x", "holder": str(uuid.uuid4())}
    add = "INSERT INTO elections (name, holder, until) VALUES (%(name)s, %(holder)s, now())"
    try:
        with pool.connection("test") as conn:
            conn.execute(add, key)
            with pytest.raises(psycopg.errors.UniqueViolation):
                conn.execute(add, key)
            assert conn.execute("SELECT count(*) FROM elections").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            add_without_heeding_the_error(pool, add, key)
        with pool.connection("test") as conn:
            assert conn.execute("SELECT count(*) FROM elections").fetchone() == (1,)
    finally:
        pool.close()


def add_without_heeding_the_error(pool: Pool, statement: str, key: dict[str, str]) -> None:
    with pool.transaction("test") as conn, contextlib.suppress(psycopg.errors.UniqueViolation):
        conn.execute(statement.encode(), key)

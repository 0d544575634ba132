"""Nothing waits permanently for Postgres: each statement and each commit has a deadline of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from harness.hanging import hung
from harness.standby import standby_of, url_of_both
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import deadline
from mpesa_gateway.store import pool as pool_module
from mpesa_gateway.store.deadline import BoundedConnection
from mpesa_gateway.store.pool import Pool

DEADLINE_S = 1.0
# Generous: what it must not be is without end.
SOON_S = 15.0


@pytest.fixture(autouse=True)
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedConnection, "deadline_s", DEADLINE_S)


@contextmanager
def opened(url: str, size: int = 3) -> Iterator[Pool]:
    pool = Pool(url, size=size, name="test")
    pool.open()
    yield pool
    pool.close()


def ask(pool: Pool, statement: bytes = b"SELECT 1") -> float:
    """How long until it was answered, or UnavailableError raised."""
    begun = time.monotonic()
    with suppress(UnavailableError), pool.connection("test") as conn:
        conn.execute(statement)
    return time.monotonic() - begun


def writes(pool: Pool) -> bool:
    """Whether a transaction could be committed."""
    try:
        with pool.transaction("test") as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS noted (at TIMESTAMPTZ)")
            conn.execute("INSERT INTO noted VALUES (now())")
    except UnavailableError:
        return False
    return True


def test_the_deadline_is_later_than_postgres_own() -> None:
    assert deadline.STATEMENT_TIMEOUT_MS / 1000 < deadline.STATEMENT_DEADLINE_S


def test_a_statement_that_takes_long_is_ended_on_both_sides(database_url: str) -> None:
    with opened(database_url) as pool:
        with pytest.raises(UnavailableError), pool.connection("test") as conn:
            conn.execute("SELECT pg_sleep(60)")
        assert conn.closed

        def has_ended() -> bool:
            with pool.connection("watch") as other:
                row = other.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)'"
                    " AND pid <> pg_backend_pid() AND datname = current_database()"
                    " AND state = 'active'"
                ).fetchone()
            return row == (0,)

        wait_for(has_ended, what="the statement's end in Postgres")


def test_several_statements_in_time_may_take_longer_together(database_url: str) -> None:
    with opened(database_url) as pool, pool.connection("test") as conn:
        for _ in range(4):
            conn.execute("SELECT pg_sleep(%s)", [DEADLINE_S / 3])


def test_a_commit_that_waits_for_a_standby_is_given_up_and_leaves_no_process(
    own_postgres: EmbeddedPostgres,
) -> None:
    """Postgres ends no such wait by itself, and does not notice that its client has left."""
    local = psycopg.connect(
        own_postgres.url(), autocommit=True, options="-c synchronous_commit=local"
    )
    with local, opened(own_postgres.url()) as pool:
        assert writes(pool)
        local.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        local.execute("SELECT pg_reload_conf()")
        try:
            wait_for(lambda: not writes(pool), what="the setting to be read")
            for _ in range(3):
                assert not writes(pool)

            def stuck() -> int:
                row = local.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                ).fetchone()
                assert row is not None
                return int(row[0])

            wait_for(lambda: stuck() == 0, what="the end of commits that nobody waits for")
        finally:
            local.execute("ALTER SYSTEM RESET synchronous_standby_names")
            local.execute("SELECT pg_reload_conf()")
        wait_for(lambda: writes(pool), what="commits to be possible again")


@pytest.mark.parametrize("is_first", [True, False], ids=["listed first", "listed second"])
def test_a_primary_that_stands_still_for_good_is_left_for_its_successor(
    own_postgres: EmbeddedPostgres, own_directory: Path, is_first: bool
) -> None:
    """Its kernel acknowledges everything, so that no keepalive shows it."""
    with standby_of(own_postgres, own_directory) as standby:
        order = (own_postgres, standby) if is_first else (standby, own_postgres)
        with opened(url_of_both(own_postgres.url(), *order)) as pool:
            wait_for(lambda: writes(pool), what="the first primary")
            with hung(own_postgres.process.pid):
                assert ask(pool) < SOON_S
                standby.promote()
                wait_for(lambda: writes(pool), timeout_s=30, what="the second primary")
                for _ in range(10):
                    assert writes(pool), "a connection to the old one was left over"


def test_idle_connections_to_a_server_that_stands_still_go_together(
    own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each would cost a caller its deadline."""
    monkeypatch.setattr(pool_module, "UNCHECKED_S", 60.0)
    with opened(own_postgres.url(), size=2) as pool:
        with pool.connection("one") as one, pool.connection("two") as two:
            pids = {one.info.backend_pid, two.info.backend_pid}
        with hung(own_postgres.process.pid):
            ask(pool)

        def pid() -> int:
            with pool.connection("pid") as conn:
                return conn.info.backend_pid

        wait_for(lambda: ask(pool) < DEADLINE_S, what="the server")
        assert pid() not in pids
        with pool.connection("one") as one, pool.connection("two") as two:
            assert not pids & {one.info.backend_pid, two.info.backend_pid}

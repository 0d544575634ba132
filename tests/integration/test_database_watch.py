"""Whether Postgres takes writes, and whether a pool is dead: what the watch finds out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import errors

from harness.databases import takes_no_writes
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_devkit.processes import free_port
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.usecases import database_watch
from mpesa_gateway.usecases.database_watch import DatabaseWatch

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


@contextmanager
def opened(url: str, name: str = "test", size: int = 2) -> Iterator[Pool]:
    pool = Pool(url, size=size, name=name)
    pool.open()
    yield pool
    pool.close()


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with opened(database_url) as made:
        yield made


def watch_of(url: str, beating: Pool, *others: Pool, at: datetime = NOW) -> DatabaseWatch:
    return DatabaseWatch(url, beating, others, lambda: at)


@contextmanager
def started(watch: DatabaseWatch) -> Iterator[DatabaseWatch]:
    watch.start()
    yield watch
    watch.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_watch, "BEAT_S", 0.05)
    monkeypatch.setattr(database_watch, "SILENT_S", 1.5)


@pytest.mark.usefixtures("quick")
def test_a_read_only_database_is_not_writable_until_it_is(database_url: str, pool: Pool) -> None:
    with started(watch_of(database_url, pool)) as watch:
        assert watch.is_writable()
        with takes_no_writes(database_url):
            wait_for(lambda: not watch.is_writable(), what="silence")
        wait_for(watch.is_writable, what="writes")


@pytest.mark.usefixtures("quick")
def test_commits_that_wait_are_no_writes(own_postgres: EmbeddedPostgres) -> None:
    local = psycopg.connect(
        own_postgres.url("own"), autocommit=True, options="-c synchronous_commit=local"
    )
    with (
        local,
        opened(own_postgres.url("own")) as pool,
        started(watch_of(own_postgres.url("own"), pool)) as watch,
    ):
        wait_for(lambda: local.execute("SELECT FROM heartbeats").rowcount > 0, what="a beat")
        local.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        local.execute("SELECT pg_reload_conf()")
        try:
            wait_for(lambda: not watch.is_writable(), what="silence")
            with pool.connection("read") as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,), "a read still answers"
        finally:
            local.execute("ALTER SYSTEM RESET synchronous_standby_names")
            local.execute("SELECT pg_reload_conf()")
        wait_for(watch.is_writable, what="writes")


@pytest.mark.usefixtures("quick")
def test_a_write_that_finds_no_room_is_told_at_once(database_url: str, pool: Pool) -> None:
    """The heartbeat's row has its place already: only a new row shows that the disk is full."""
    with (
        opened(database_url, "work") as work,
        started(watch_of(database_url, pool, work)) as watch,
    ):
        with suppress(UnavailableError), work.connection("full"):
            raise errors.DiskFull("no space left")
        assert not watch.is_writable()
        wait_for(watch.is_writable, what="it to be forgotten")


def test_what_was_never_started_says_nothing_bad(database_url: str, pool: Pool) -> None:
    watch = watch_of(database_url, pool)
    assert watch.is_writable()
    assert not watch.is_stuck()


def test_rows_of_processes_that_are_gone_are_deleted(database_url: str, pool: Pool) -> None:
    watch_of(database_url, pool, at=NOW - timedelta(days=2)).beat()
    watch_of(database_url, pool, at=NOW - timedelta(hours=2)).beat()
    watch = watch_of(database_url, pool)
    watch.beat()
    watch.beat()

    with pool.connection("rows") as conn:
        times = [row[0] for row in conn.execute("SELECT beat_at FROM heartbeats ORDER BY 1")]
    assert times == [NOW - timedelta(hours=2), NOW]


def fail_once(pool: Pool) -> None:
    with pytest.raises(UnavailableError), pool.connection("fail", 0.05):
        pass
    assert pool.failing_since_s is not None


def test_a_dead_pool_is_a_reason_to_restart_only_if_a_fresh_connection_works(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/nothing"
    with opened(nowhere, "dead") as dead:
        fail_once(dead)
        watch = watch_of(database_url, pool, dead)
        watch.look()
        assert not watch.is_stuck(), "not for a moment"

        monkeypatch.setattr(database_watch, "STUCK_S", 0.0)
        watch.look()
        assert watch.is_stuck()

        outage = watch_of(nowhere, pool, dead)
        outage.look()
        assert not outage.is_stuck(), "a restart would change nothing"


def test_a_pool_that_nobody_asked_since_its_failure_is_asked_first(
    own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_watch, "STUCK_S", 0.0)
    with opened(own_postgres.url(), "beating") as beating, opened(own_postgres.url()) as idle:
        own_postgres.stop()
        fail_once(idle)
        own_postgres.start()
        watch = watch_of(own_postgres.url(), beating, idle)

        def look() -> bool:
            watch.look()
            return idle.failing_since_s is None

        wait_for(look, what="the pool to work")
        assert not watch.is_stuck()

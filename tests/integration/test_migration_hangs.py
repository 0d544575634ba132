"""A migration takes as long as it takes, says so, and is not waited for when its server is gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness.hanging import hung
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import long_statements
from mpesa_gateway.store.deadline import BoundedConnection
from mpesa_gateway.store.migrations import Migration, apply_migrations

DEADLINE_S = 1.0


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedConnection, "deadline_s", DEADLINE_S)
    monkeypatch.setattr(long_statements, "LOOK_EVERY_S", 0.3)


def test_a_long_migration_has_no_deadline_and_says_that_it_runs(empty_database_url: str) -> None:
    said: list[str] = []
    slow = Migration(1, "slow", "SELECT pg_sleep(2)")

    assert apply_migrations(empty_database_url, [slow], said.append) == [slow]
    assert any(it.startswith("001 slow: still running after") for it in said)


def test_a_server_that_stands_still_is_not_waited_for(own_postgres: EmbeddedPostgres) -> None:
    url = own_postgres.create_database("hanging")
    endless = Migration(1, "endless", "SELECT pg_sleep(600)")
    with psycopg.connect(own_postgres.url(), autocommit=True) as conn, ThreadPoolExecutor(1) as one:
        applied = one.submit(apply_migrations, url, [endless], lambda _: None)

        def is_running() -> bool:
            cursor = conn.execute(
                "SELECT FROM pg_stat_activity WHERE datname = 'hanging' AND wait_event = 'PgSleep'"
            )
            return cursor.rowcount == 1

        wait_for(is_running, what="the migration")
        with hung(own_postgres.process.pid), pytest.raises(UnavailableError, match="went away"):
            applied.result(timeout=60)
    own_postgres.drop_database("hanging")

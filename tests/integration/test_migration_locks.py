"""Migrations wait for locks in small bites, and an index is built beside the writers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from harness.waiting import wait_for
from mpesa_gateway.errors import SchemaError, UnavailableError
from mpesa_gateway.store.migrations import Migration, Patience, apply_migrations

FIRST = Migration(1, "first", "CREATE TABLE one (id INT); INSERT INTO one VALUES (1);")
ALTER = Migration(2, "alter", "ALTER TABLE one ADD COLUMN name TEXT;")
INDEX = Migration(2, "index", "CREATE UNIQUE INDEX CONCURRENTLY one_id ON one (id);")
QUICK = Patience(lock_ms=100, total_s=20.0)


@contextmanager
def reading(url: str) -> Iterator[psycopg.Connection]:
    """A transaction that has read the table and stays open, as a report or a backup does."""
    with psycopg.connect(url) as conn:
        conn.execute("SELECT * FROM one").fetchall()
        yield conn


def silent(_: str) -> None:
    pass


def indexes(url: str) -> dict[str, bool]:
    """Every index of the table, and whether it can be used."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index"
            " WHERE indrelid = 'one'::regclass"
        )
        return dict(rows)


def started(
    url: str, migrations: list[Migration], report: Callable[[str], None], patience: Patience = QUICK
) -> threading.Thread:
    thread = threading.Thread(
        target=apply_migrations, args=[url, migrations, report], kwargs={"patience": patience}
    )
    thread.start()
    return thread


def test_a_table_in_use_is_waited_for_in_small_bites(empty_database_url: str) -> None:
    """While somebody reads for long, others still write between two tries."""
    apply_migrations(empty_database_url, [FIRST], silent)
    said: list[str] = []
    with reading(empty_database_url) as reader:
        pid = reader.info.backend_pid
        thread = started(empty_database_url, [FIRST, ALTER], said.append)
        wait_for(lambda: len(said) >= 3)
        before = time.monotonic()
        with psycopg.connect(empty_database_url) as writer:
            writer.execute("INSERT INTO one VALUES (2)")
        waited_s = time.monotonic() - before
        assert thread.is_alive()
        reader.rollback()
        thread.join(timeout=20)

    assert not thread.is_alive()
    assert waited_s < 2
    assert said[0] == "applying 002 alter"
    assert f"002 got no lock: the oldest transaction is of pid {pid}" in said[1]
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("SELECT count(name), count(*) FROM one").fetchone() == (0, 2)


def test_who_gets_no_lock_at_all_says_who_is_in_the_way(empty_database_url: str) -> None:
    apply_migrations(empty_database_url, [FIRST], silent)
    impatient = Patience(lock_ms=50, total_s=0)
    with reading(empty_database_url) as reader:
        pid = reader.info.backend_pid
        with pytest.raises(SchemaError, match=rf"pid {pid} .*Nothing of it was applied"):
            apply_migrations(empty_database_url, [FIRST, ALTER], silent, patience=impatient)

    assert apply_migrations(empty_database_url, [FIRST, ALTER], silent) == [ALTER]


def test_an_index_keeps_no_writer_waiting(empty_database_url: str) -> None:
    """It waits for a transaction that began before it, and the table is written to meanwhile."""
    apply_migrations(empty_database_url, [FIRST], silent)
    with psycopg.connect(empty_database_url) as old:
        old.execute("INSERT INTO one VALUES (2)")
        thread = started(empty_database_url, [FIRST, INDEX], silent)
        wait_for(lambda: building(empty_database_url))
        with psycopg.connect(empty_database_url) as writer:
            writer.execute("SET statement_timeout = '5s'")
            writer.execute("INSERT INTO one VALUES (3)")
        assert thread.is_alive()
        old.commit()
        thread.join(timeout=20)

    assert indexes(empty_database_url) == {"one_id": True}


def building(url: str) -> bool:
    """Whether the build waits for older transactions."""
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE UNIQUE INDEX%'"
            " AND wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()
        return row == (1,)


def test_an_index_whose_build_failed_is_built_again(empty_database_url: str) -> None:
    apply_migrations(empty_database_url, [FIRST], silent)
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("INSERT INTO one VALUES (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        apply_migrations(empty_database_url, [FIRST, INDEX], silent)
    assert indexes(empty_database_url) == {"one_id": False}

    with psycopg.connect(empty_database_url) as conn:
        conn.execute("DELETE FROM one")
    assert apply_migrations(empty_database_url, [FIRST, INDEX], silent) == [INDEX]
    assert indexes(empty_database_url) == {"one_id": True}


def test_a_build_that_was_killed_is_done_again(empty_database_url: str) -> None:
    apply_migrations(empty_database_url, [FIRST], silent)
    failed: list[Exception] = []

    def run() -> None:
        try:
            apply_migrations(empty_database_url, [FIRST, INDEX], silent)
        except UnavailableError as error:
            failed.append(error)

    with psycopg.connect(empty_database_url) as old:
        old.execute("INSERT INTO one VALUES (2)")
        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: building(empty_database_url))
        with psycopg.connect(empty_database_url, autocommit=True) as killer:
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'CREATE UNIQUE INDEX%' AND datname = current_database()"
            )
        thread.join(timeout=20)
        old.commit()

    assert len(failed) == 1
    assert indexes(empty_database_url) == {"one_id": False}
    assert apply_migrations(empty_database_url, [FIRST, INDEX], silent) == [INDEX]
    assert indexes(empty_database_url) == {"one_id": True}


def test_an_index_that_was_built_and_not_recorded_is_not_built_twice(
    empty_database_url: str,
) -> None:
    apply_migrations(empty_database_url, [FIRST], silent)
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(INDEX.sql.encode())
        before = conn.execute("SELECT 'one_id'::regclass::oid").fetchone()

    assert apply_migrations(empty_database_url, [FIRST, INDEX], silent) == [INDEX]
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("SELECT 'one_id'::regclass::oid").fetchone() == before


def test_eight_at_once_do_not_wait_for_each_other_in_a_circle(empty_database_url: str) -> None:
    """One builds an index, which waits for every snapshot; those who wait for it hold none."""
    apply_migrations(empty_database_url, [FIRST], silent)
    said: list[str] = []
    with psycopg.connect(empty_database_url) as old:
        old.execute("INSERT INTO one VALUES (2)")
        threads = [started(empty_database_url, [FIRST, INDEX], said.append) for _ in range(8)]
        wait_for(lambda: building(empty_database_url))
        wait_for(lambda: said.count("another process migrates; waiting for it") == 7)
        old.commit()
        for thread in threads:
            thread.join(timeout=30)

    assert not any(thread.is_alive() for thread in threads)
    assert said.count("applying 002 index") == 1
    assert indexes(empty_database_url) == {"one_id": True}

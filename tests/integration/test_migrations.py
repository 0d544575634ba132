"""Migrations: once, in order, by any number of processes at once."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.errors import SchemaError, UnavailableError
from mpesa_gateway.store.migrations import (
    Migration,
    apply_migrations,
    load_migrations,
    migrations_directory,
    wait_for_schema,
)

FIRST = Migration(1, "first", "CREATE TABLE one (id INT); CREATE TABLE two (id INT);")
SECOND = Migration(2, "second", "INSERT INTO one VALUES (1)")
BROKEN = Migration(2, "broken", "CREATE TABLE three (id INT); SELECT 1 / 0")


def silent(_: str) -> None:
    pass


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row[0] for row in rows}


def test_the_projects_own_migrations_make_the_documented_tables(empty_database_url: str) -> None:
    applied = apply_migrations(empty_database_url, load_migrations(migrations_directory()), silent)

    assert applied[0].name == "initial_schema"
    assert {"transactions", "webhook_attempts"} <= tables(empty_database_url)


def test_a_second_run_has_nothing_to_do(empty_database_url: str) -> None:
    assert apply_migrations(empty_database_url, [FIRST], silent) == [FIRST]
    assert apply_migrations(empty_database_url, [FIRST], silent) == []
    assert apply_migrations(empty_database_url, [FIRST, SECOND], silent) == [SECOND]


def test_eight_at_once_apply_each_migration_once(empty_database_url: str) -> None:
    applied: list[Migration] = []

    def run() -> None:
        applied.extend(apply_migrations(empty_database_url, [FIRST, SECOND], silent))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(it.version for it in applied) == [1, 2]
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("SELECT count(*) FROM one").fetchone() == (1,)


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        apply_migrations(empty_database_url, [FIRST, BROKEN], silent)

    assert "three" not in tables(empty_database_url)
    assert apply_migrations(empty_database_url, [FIRST, SECOND], silent) == [SECOND]


def test_a_file_that_was_changed_after_it_was_applied_is_refused(empty_database_url: str) -> None:
    apply_migrations(empty_database_url, [FIRST], silent)

    with pytest.raises(SchemaError, match="001 was changed"):
        apply_migrations(empty_database_url, [replace(FIRST, sql="SELECT 1"), SECOND], silent)


def test_a_database_that_is_ahead_is_left_alone(empty_database_url: str) -> None:
    """A roll-back runs the older release on the newer schema."""
    apply_migrations(empty_database_url, [FIRST, SECOND], silent)

    assert apply_migrations(empty_database_url, [FIRST], silent) == []
    wait_for_schema(empty_database_url, 1, deadline_s=5)


def test_waiting_ends_when_somebody_else_has_migrated(empty_database_url: str) -> None:
    waiter = threading.Thread(
        target=wait_for_schema, args=[empty_database_url, 2], kwargs={"deadline_s": 20}
    )
    waiter.start()
    apply_migrations(empty_database_url, [FIRST, SECOND], silent)
    waiter.join(timeout=10)

    assert not waiter.is_alive()


def test_waiting_gives_up_at_its_deadline_and_says_what_it_saw(empty_database_url: str) -> None:
    with pytest.raises(SchemaError, match="last seen: schema version 0"):
        wait_for_schema(empty_database_url, 1, deadline_s=0)
    with pytest.raises(SchemaError, match="does not answer"):
        wait_for_schema("postgresql://postgres@127.0.0.1:1/x", 1, deadline_s=0)


def test_a_postgres_that_starts_late_is_waited_for(own_directory: Path) -> None:
    postgres = EmbeddedPostgres(own_directory, durable=False)
    postgres.start()
    url = postgres.create_database("late")
    postgres.stop()
    said: list[str] = []

    def start_at_first_word(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            postgres.start()

    try:
        assert apply_migrations(url, [FIRST], start_at_first_word, deadline_s=30) == [FIRST]
    finally:
        postgres.stop()
    assert said[0] == "Postgres does not answer yet; trying for 30 s"


def test_no_database_is_an_error_in_words() -> None:
    with pytest.raises(UnavailableError):
        apply_migrations("postgresql://postgres@127.0.0.1:1/x", [FIRST], silent)


@pytest.mark.parametrize(
    "names",
    [[], ["001_a.sql", "003_b.sql"], ["002_a.sql"], ["001_a.sql", "1_b.sql"], ["001_A.sql"]],
    ids=["none", "gap", "no first", "bad number", "capitals"],
)
def test_files_that_do_not_count_from_one_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(SchemaError):
        load_migrations(tmp_path)

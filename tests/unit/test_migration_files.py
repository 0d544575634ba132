"""What a migration may do while the release before it serves: read from the files themselves."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from harness.collecting import every_case
from mpesa_gateway.errors import SchemaError
from mpesa_gateway.store.migrations import Migration, load_migrations, migrations_directory

# The first one finds an empty database.
FIRST, *LATER = load_migrations(migrations_directory())
FUNCTION = re.compile(r"\$\$.*?\$\$", re.DOTALL)
CREATED = re.compile(r"CREATE TABLE (\w+)")
# Each takes a lock of the table that somebody may have to wait for.
LOCKED = re.compile(
    r"(?:ALTER TABLE|DROP TABLE|REFERENCES| ON|LOCK TABLE|TRUNCATE|UPDATE(?= \w+ SET)) (\w+)"
)
INDEXED = re.compile(r"INDEX \w+ ON (\w+)")
REWRITES = re.compile(
    r"ADD COLUMN \w+ [^;]*(?:NOT NULL|DEFAULT)|TYPE |DROP COLUMN|RENAME|DELETE FROM"
)


def statements(migration: Migration) -> str:
    """Without comments, and without the bodies of functions: they run later."""
    return FUNCTION.sub("", re.sub(r"--.*", "", migration.sql))


def problems(migration: Migration) -> list[str]:
    """What keeps writers waiting, or the release before from going on."""
    if migration.index is not None:
        return []
    text = statements(migration)
    own = set(CREATED.findall(text))
    locked = set(LOCKED.findall(text)) - own
    altered = re.sub(r"CREATE TABLE.*?;", "", text, flags=re.DOTALL)
    found = []
    if len(locked) > 1:
        found.append(f"locks {sorted(locked)}: two tables in one transaction can deadlock")
    if set(INDEXED.findall(text)) - own:
        found.append("builds an index while writers wait: CREATE INDEX CONCURRENTLY, alone")
    if "ADD CONSTRAINT" in altered and "NOT VALID" not in altered:
        found.append("reads the table while writers wait: ADD CONSTRAINT … NOT VALID")
    if REWRITES.search(altered):
        found.append("rewrites the table, or takes away what the release before uses")
    return found


# It locks one table for a moment, and afterwards there is a table of that name with those columns.
SWAPPED = {"events_by_month": "transaction_events"}


def without_swap(migration: Migration) -> Migration:
    """Without what changes the name of the table and of what replaces it."""
    table = SWAPPED.get(migration.name)
    if table is None:
        return migration
    own = rf"ALTER TABLE {table}_first.*?;|ALTER TABLE {table} RENAME .*?;|ON {table}_first"
    return replace(migration, sql=re.sub(own, ";", migration.sql, flags=re.DOTALL))


@every_case("migration", LATER, ids=lambda it: f"{it.version:03d}")
def test_a_migration_keeps_no_writer_waiting(migration: Migration) -> None:
    assert problems(without_swap(migration)) == []


@every_case("name", list(SWAPPED))
def test_a_swap_locks_that_table_only_and_reads_nothing(name: str) -> None:
    (migration,) = [it for it in LATER if it.name == name]
    text, table = statements(migration), SWAPPED[name]
    locked = set(re.findall(r"(?:ALTER TABLE|LOCK TABLE|REFERENCES) (\w+)", text))

    assert locked == {table, f"{table}_first"}
    assert "USING INDEX" in text
    assert not re.search(
        r"INSERT|UPDATE [a-z]+ SET|VALIDATE|ADD CHECK|CREATE (UNIQUE )?INDEX", text
    )


@every_case(
    "sql",
    [
        "ALTER TABLE callbacks ADD COLUMN a TEXT; ALTER TABLE deliveries ADD COLUMN a TEXT;",
        "CREATE TABLE a (d BIGINT REFERENCES deliveries (id), t BIGINT REFERENCES transactions);",
        "CREATE INDEX a ON deliveries (id);",
        "ALTER TABLE callbacks ADD CONSTRAINT a CHECK (id > 0);",
        "ALTER TABLE callbacks ADD COLUMN a TEXT NOT NULL DEFAULT '';",
        "ALTER TABLE callbacks ADD COLUMN a BIGINT DEFAULT nextval('x');",
        "ALTER TABLE callbacks DROP COLUMN body;",
        "ALTER TABLE callbacks ALTER COLUMN id TYPE TEXT;",
    ],
)
def test_one_that_does_is_found(sql: str) -> None:
    assert problems(Migration(2, "bad", sql))


def test_an_index_that_is_built_concurrently_stands_alone() -> None:
    alone = Migration(2, "index", "-- Why.\nCREATE INDEX CONCURRENTLY a ON b (c)\n WHERE d;\n")
    assert alone.index == "a"
    assert Migration(2, "no index", "-- CONCURRENTLY\nSELECT 1;").index is None
    for sql in (
        alone.sql + "SELECT 1;",
        "SELECT 1; " + alone.sql,
        "DROP INDEX CONCURRENTLY a;",
        "CREATE INDEX CONCURRENTLY ON b (c);",
    ):
        with pytest.raises(SchemaError, match="002: CREATE INDEX CONCURRENTLY stands alone"):
            _ = replace(alone, sql=sql).index

"""What one test leaves in a database does not reach the next."""

from __future__ import annotations

import psycopg
import pytest

from harness.databases import Databases
from mpesa_devkit.embedded import EmbeddedPostgres

CHANGES = {
    "table": "CREATE TABLE left_behind ()",
    "column": "ALTER TABLE callbacks ADD COLUMN left_behind int",
    "constraint": "ALTER TABLE callbacks ADD CHECK (id <> 7)",
    "index": "CREATE INDEX ON callbacks (id) WHERE id > 7",
    "trigger": "ALTER TABLE transactions DISABLE TRIGGER ALL",
    "function": "CREATE FUNCTION left_behind() RETURNS int LANGUAGE sql RETURN 1",
    "setting": "DO $$BEGIN EXECUTE format("
    "'ALTER DATABASE %I SET lock_timeout = 7', current_database()); END$$",
    "no migrations": "DELETE FROM schema_migrations",
    "another migration": "UPDATE schema_migrations SET version = 9999 WHERE version = 1",
}


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES)
def test_a_changed_database_is_used_by_nobody_else(
    postgres: EmbeddedPostgres, databases: Databases, statement: str
) -> None:
    name = databases.take()
    with psycopg.connect(postgres.url(name), autocommit=True) as conn:
        conn.execute(statement.encode())

    databases.give_back(name)

    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(postgres.url(name))


def test_rows_numbers_and_open_transactions_do_not_stay(
    postgres: EmbeddedPostgres, databases: Databases
) -> None:
    name = databases.take()
    holder = psycopg.connect(postgres.url(name))
    holder.execute("INSERT INTO elections (name, holder, until) VALUES ('x', 'y', now())")

    databases.give_back(name)

    with pytest.raises(psycopg.OperationalError):
        holder.execute("SELECT 1")
    again = databases.take()
    assert again == name, "it was what it had been"
    with psycopg.connect(postgres.url(again)) as conn:
        assert conn.execute("SELECT count(*) FROM elections").fetchone() == (0,)
    databases.give_back(again)

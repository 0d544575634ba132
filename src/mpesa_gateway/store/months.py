"""Partitions of the tables that grow with payments: one for each month (docs/decisions/0029).

They are made ahead, and payments are counted from the month's first number on once all tables have
its partition. So no row can come for which there is none, whoever is late.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg import errors, sql
from psycopg.rows import class_row

from mpesa_gateway.domain.months import Month, month_of, parse_month
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.pool import Connection

# How long a change of the catalogue waits for a table: everybody behind it waits, too.
LOCK_MS = 500
_MADE_BY_ANOTHER = (
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.WrongObjectType,
)


@dataclass(frozen=True)
class Table:
    """A table with a partition for each month, and what each partition has of its own."""

    name: str
    # Of the whole table, it would lock what it names whenever a partition comes or goes.
    foreign_key: LiteralString


TABLES = (Table("transaction_events", "FOREIGN KEY (transaction_id) REFERENCES transactions (id)"),)
_NAMES = [it.name for it in TABLES]


@dataclass(frozen=True)
class Partition:
    """A partition that is attached, and how much room it takes."""

    table: str
    name: str
    bytes: int

    @property
    def month(self) -> Month | None:
        """Its month; None for the default partition."""
        try:
            return parse_month(self.name.removeprefix(f"{self.table}_").replace("_", "-"))
        except ValueError:
            return None


def list_partitions(conn: Connection) -> list[Partition]:
    """Return every partition that is attached."""
    cursor = conn.cursor(row_factory=class_row(Partition))
    cursor.execute(
        """
        SELECT parent.relname AS table, child.relname AS name,
               pg_total_relation_size(child.oid) AS bytes
          FROM pg_inherits
          JOIN pg_class parent ON parent.oid = inhparent
          JOIN pg_class child ON child.oid = inhrelid
         WHERE inhparent IN (SELECT to_regclass(name) FROM unnest(%(names)s::text[]) AS name)
         ORDER BY child.relname
        """,
        {"names": _NAMES},
    )
    return cursor.fetchall()


def list_months(conn: Connection) -> list[Month]:
    """Return the months of which every table has its partition, in order."""
    having: dict[Month, int] = {}
    for it in list_partitions(conn):
        if it.month is not None:
            having[it.month] = having.get(it.month, 0) + 1
    return sorted(month for month, count in having.items() if count == len(TABLES))


def count_ready(conn: Connection, now: datetime) -> int:
    """Return of how many months, this one and those that follow, every table has its partition."""
    months, count = set(list_months(conn)), 0
    while Month(month_of(now).number + count) in months:
        count += 1
    return count


def limit_lock_waits(conn: Connection) -> None:
    """Let the open transaction wait for no table for long."""
    conn.execute(
        "SELECT set_config('lock_timeout', %(lock_ms)s, true)", {"lock_ms": f"{LOCK_MS}ms"}
    )


def partition_name(table: Table, month: Month) -> str:
    """Return the name of a table's partition for a month."""
    return f"{table.name}_{month.suffix}"


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Who stood still for longer than its duty lasts meets the one who took it over."""
    try:
        yield
    except _MADE_BY_ANOTHER as error:
        raise UnavailableError("another process makes the partition") from error


def create(conn: Connection, table: Table, month: Month) -> None:
    """Make the table that will be the month's partition, unless it is there.

    Raises UnavailableError when another process does it at this moment.
    """
    limit_lock_waits(conn)
    statement = sql.SQL(
        """
        CREATE TABLE IF NOT EXISTS {partition} (
            LIKE {table} INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING INDEXES,
            {foreign_key}
        )
        """
    ).format(
        partition=sql.Identifier(partition_name(table, month)),
        table=sql.Identifier(table.name),
        foreign_key=sql.SQL(table.foreign_key),
    )
    with _one_at_a_time():
        conn.execute(statement)


def attach(conn: Connection, table: Table, month: Month) -> None:
    """Make it the month's partition: readers and writers of other months go on.

    Raises UnavailableError when another process does it at this moment.
    """
    limit_lock_waits(conn)
    statement = sql.SQL(
        """
        ALTER TABLE {table} ATTACH PARTITION {partition}
              FOR VALUES FROM ({begins}) TO ({ends})
        """
    ).format(
        table=sql.Identifier(table.name),
        partition=sql.Identifier(partition_name(table, month)),
        begins=sql.Literal(month.begins),
        ends=sql.Literal(month.ends),
    )
    with _one_at_a_time():
        conn.execute(statement)


def is_counting(conn: Connection, month: Month) -> bool:
    """Return whether payments have the numbers of the month, or of a later one."""
    row = conn.execute(
        """
        SELECT coalesce(pg_sequence_last_value(
                   pg_get_serial_sequence('transactions', 'id')::regclass), 0) >= %(last)s
        """,
        {"last": month.begins - 1},
    ).fetchone()
    return row == (True,)


def count_from(conn: Connection, month: Month) -> None:
    """Count payments from the month's first number on.

    The caller has seen that they are not counted so yet, and nobody else can do it meanwhile:
    numbers that were given out would be given out again.
    """
    conn.execute(
        "SELECT setval(pg_get_serial_sequence('transactions', 'id'), %(last)s)",
        {"last": month.begins - 1},
    )

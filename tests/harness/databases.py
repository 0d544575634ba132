"""Migrated databases that tests use one after the other.

A copy of the template costs 0.2 s of CPU, emptying one that is there a tenth of it. One whose
schema or settings a test has changed is dropped instead.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg

from harness.given_stores import GivenPostgres
from mpesa_devkit.embedded import EmbeddedPostgres

# All that a test could leave behind beside rows, in one text.
_SHAPE = """
    SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
      SELECT concat_ws(' ', 'relation', c.relname, c.relkind, c.reloptions) FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace
      UNION ALL
      SELECT concat_ws(' ', 'column', c.relname, a.attname, a.attnum, a.atttypid, a.attnotnull)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
      UNION ALL
      SELECT concat_ws(' ', 'constraint', k.conrelid::regclass, k.conname,
                       pg_get_constraintdef(k.oid))
        FROM pg_constraint k WHERE k.connamespace = 'public'::regnamespace
      UNION ALL
      SELECT concat_ws(' ', 'trigger', t.tgrelid::regclass, t.tgenabled, t.tgtype,
                       CASE WHEN t.tgisinternal THEN '' ELSE t.tgname END)
        FROM pg_trigger t
      UNION ALL
      SELECT concat_ws(' ', 'index', i.indexrelid::regclass, i.indisvalid, i.indisunique)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = 'public'::regnamespace
      UNION ALL
      SELECT concat_ws(' ', 'function', p.proname, md5(p.prosrc)) FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
      UNION ALL
      SELECT concat_ws(' ', 'setting', s.setconfig) FROM pg_db_role_setting s
        JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
      UNION ALL
      SELECT concat_ws(' ', 'migration', version, checksum) FROM schema_migrations
    ) AS shape (line)
"""
_TABLES = """
    SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables
    WHERE schemaname = 'public' AND tablename <> 'schema_migrations'
"""
_HANG_UP = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@contextmanager
def takes_no_writes(url: str) -> Iterator[None]:
    """Inside the block the database is read-only for who connects; everybody must connect anew."""
    name = urlsplit(url).path.lstrip("/")
    with psycopg.connect(
        url, autocommit=True, options="-c default_transaction_read_only=off"
    ) as conn:
        conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        conn.execute(_HANG_UP)
        try:
            yield
        finally:
            conn.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


class Databases:
    """Copies of `template`, in which migrations have put no row but their own."""

    def __init__(self, server: EmbeddedPostgres | GivenPostgres, template: str) -> None:
        self._server = server
        self._template = template
        self._numbers = itertools.count(1)
        self._free: list[str] = []
        with psycopg.connect(server.url(template)) as conn:
            self._shape = conn.execute(_SHAPE).fetchone()
            (self._tables,) = conn.execute(_TABLES).fetchone() or ("",)

    def take(self) -> str:
        """The name of an empty one."""
        if self._free:
            return self._free.pop()
        name = f"test_{next(self._numbers)}"
        self._server.create_database(name, self._template)
        return name

    def url(self, name: str) -> str:
        """A connection string."""
        return self._server.url(name)

    def give_back(self, name: str) -> None:
        """It is emptied for the next test, whoever is connected."""
        if self._is_as_before(name):
            self._free.append(name)
        else:
            self._server.drop_database(name)

    def _is_as_before(self, name: str) -> bool:
        """Whether it is what it was; then it is emptied."""
        with psycopg.connect(self._server.url(name), autocommit=True) as conn:
            conn.execute(_HANG_UP)
            if conn.execute(_SHAPE).fetchone() != self._shape:
                return False
        self.empty(self.url(name))
        return True

    def empty(self, url: str) -> None:
        """Take every row out. It may be in use."""
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(f"TRUNCATE {self._tables} RESTART IDENTITY CASCADE".encode())

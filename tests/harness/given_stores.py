"""The servers that TEST_DATABASE_URL and TEST_REDIS_URL name, in the place of embedded ones.

They are servers for tests: databases that begin with `mpesa_test_` are dropped, Redis is emptied.
Tests that stop, kill or replace a server go on using embedded ones of their own.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

DATABASE_VARIABLE = "TEST_DATABASE_URL"
REDIS_VARIABLE = "TEST_REDIS_URL"
PREFIX = "mpesa_test_"
# Redis has 16 databases unless it is told otherwise.
MOST_REDIS_DATABASES = 16

# For a test that uses the socket or the programs of an embedded Postgres.
EMBEDDED_ONLY = pytest.mark.skipif(
    DATABASE_VARIABLE in os.environ,
    reason=f"{DATABASE_VARIABLE} names a server without a directory of ours",
)


def worker_number() -> int:
    """The number of this process among those that share the servers; 0 without xdist."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


class GivenPostgres:
    """A Postgres that somebody else started; its user may create databases."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._prefix = f"{PREFIX}{worker_number()}_"

    def start(self) -> None:
        """Drop what an earlier run left."""
        with psycopg.connect(self._url, autocommit=True) as conn:
            rows = conn.execute(
                """
                SELECT datname
                  FROM pg_database
                 WHERE starts_with(datname, %(prefix)s)
                """,
                {"prefix": self._prefix},
            ).fetchall()
        for (name,) in rows:
            self.drop_database(name.removeprefix(self._prefix))

    def stop(self) -> None:
        """It is not ours to stop; what was made in it goes."""
        self.start()

    def url(self, database: str = "postgres") -> str:
        """A connection string."""
        name = database if database == "postgres" else f"{self._prefix}{database}"
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()

    def create_database(self, name: str, template: str = "template1") -> str:
        """A new database; its connection string. Names are ours, never a caller's."""
        source = template if template == "template1" else f"{self._prefix}{template}"
        # What initdb of the embedded one is told, whatever this server's cluster has.
        collation = "" if template != "template1" else " LC_COLLATE 'C' LC_CTYPE 'C'"
        source = "template0" if source == "template1" else source
        self._run(
            f"CREATE DATABASE {self._prefix}{name} TEMPLATE {source} ENCODING 'UTF8'{collation}"
        )
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is connected."""
        self._run(f"DROP DATABASE IF EXISTS {self._prefix}{name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute(statement.encode())


class GivenRedis:
    """A Redis that somebody else started; each process of the tests has a database of it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def start(self) -> None:
        """Empty the database of this process."""
        with redis.Redis.from_url(self.url()) as client:
            client.flushdb()

    def stop(self) -> None:
        """It is not ours to stop."""
        self.start()

    def url(self, database: int = 0) -> str:
        """A connection string."""
        number = worker_number() + database
        assert number < MOST_REDIS_DATABASES, number
        return urlsplit(self._url)._replace(path=f"/{number}").geturl()

"""Connections: asked whether they live before they are used, unless they worked a moment ago."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import pool as pool_module
from mpesa_gateway.store.pool import Pool


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    opened = Pool(database_url, size=1, name="test")
    opened.open()
    yield opened
    opened.close()


def backend(pool: Pool) -> int:
    """The server's process behind the only connection."""
    with pool.connection("test") as conn:
        return conn.info.backend_pid


def end_backend(database_url: str, pid: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_a_connection_that_broke_in_the_pool_is_replaced_unseen(
    pool: Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "UNCHECKED_S", 0.0)
    first = backend(pool)
    end_backend(database_url, first)

    with pool.connection("test") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        assert conn.info.backend_pid != first


def test_one_that_worked_a_moment_ago_is_used_as_it_is(
    pool: Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The price of a round trip less: broken within that moment, it is an outage of one call."""
    monkeypatch.setattr(pool_module, "UNCHECKED_S", 60.0)
    end_backend(database_url, backend(pool))

    with pytest.raises(UnavailableError), pool.connection("test") as conn:
        conn.execute("SELECT 1")

    with pool.connection("test") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_goes_back_without_a_thread_in_between(pool: Pool) -> None:
    """Or the next caller would wait for that thread: there is only one connection."""
    for _ in range(20):
        backend(pool)
        assert pool.usage().used_connections == 0

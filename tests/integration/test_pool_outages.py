"""Pools come back: whatever was asked of them while Postgres took no connection, and however often.

The cause, and why psycopg_pool's own limit is not used: docs/decisions/0017.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_devkit.processes import free_port
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import pool as pool_module
from mpesa_gateway.store.pool import Pool

Outage = Callable[[EmbeddedPostgres], AbstractContextManager[None]]
ROLE = "merchant_role"
# A caller of these tests waits this long for a connection while there is none.
ASK_S = 0.05
# The library gives its last connection up within about two seconds.
OUTAGE_S = 4.0
# After its return: one attempt that is under way, a pause, and one more attempt.
BACK_S = 5.0


@contextmanager
def stopped(server: EmbeddedPostgres) -> Iterator[None]:
    """Refuses connections, as while it fails over."""
    server.stop()
    yield
    server.start()


@contextmanager
def used_up(server: EmbeddedPostgres) -> Iterator[None]:
    """Has no connection left for us, and has ended those that we had."""
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
        conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s",
            [ROLE],
        )
        yield
        conn.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


@pytest.fixture
def pool(own_postgres: EmbeddedPostgres) -> Iterator[Pool]:
    with psycopg.connect(own_postgres.url(), autocommit=True) as conn:
        conn.execute(f"DROP ROLE IF EXISTS {ROLE}")
        conn.execute(f"CREATE ROLE {ROLE} LOGIN")
    opened = Pool(own_postgres.url().replace("postgres@", f"{ROLE}@"), size=2, name="test")
    opened.open()
    yield opened
    opened.close()


def ask(pool: Pool, timeout_s: float) -> bool:
    """Whether a statement was answered."""
    try:
        with pool.connection("test", timeout_s) as conn:
            return conn.execute("SELECT 1").fetchone() == (1,)
    except UnavailableError:
        return False


def ask_during(pool: Pool, seconds: float, *, at_least: int) -> None:
    """Ask one after the other; nobody is answered."""
    over = time.monotonic() + seconds
    asked = 0
    while asked < at_least or time.monotonic() < over:
        assert not ask(pool, ASK_S)
        asked += 1


@pytest.mark.parametrize("outage", [stopped, used_up])
@pytest.mark.parametrize("asks", [0, 40])
def test_the_first_caller_after_an_outage_is_served(
    pool: Pool, own_postgres: EmbeddedPostgres, outage: Outage, asks: int
) -> None:
    assert ask(pool, BACK_S)
    with outage(own_postgres):
        if asks:
            ask_during(pool, OUTAGE_S, at_least=asks)
        else:
            time.sleep(OUTAGE_S)

    assert ask(pool, BACK_S), "the pool is dead although Postgres is back"
    assert pool.usage().waiting_requests == 0


def test_callers_at_once_in_an_outage_are_bounded_and_then_all_served(
    pool: Pool, own_postgres: EmbeddedPostgres
) -> None:
    """More than may wait: the rest is refused at once, and none of them is in the way later."""
    most = pool_module.WAITING_PER_CONNECTION * 2
    with ThreadPoolExecutor(most + 20) as threads:
        with stopped(own_postgres):
            asked = [threads.submit(ask, pool, 1.0) for _ in range(most + 20)]
            wait_for(lambda: pool.usage().waiting_requests == most, what="a full queue")
            assert not any(it.result() for it in asked)
        served = [threads.submit(ask, pool, BACK_S) for _ in range(most)]
        assert all(it.result() for it in served)


def test_who_has_left_takes_no_memory_in_a_long_outage(
    pool: Pool, own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's pool is replaced, with what it remembers; the new one works."""
    monkeypatch.setattr(pool_module, "MAX_GIVEN_UP", 10)
    assert ask(pool, BACK_S)
    first = pool._pool
    with stopped(own_postgres):
        ask_during(pool, 0, at_least=35)
        assert first.closed
        assert pool._pool.get_stats().get("requests_waiting", 0) <= 10

    assert ask(pool, BACK_S)


def test_a_pool_that_was_closed_in_an_outage_stays_closed(
    pool: Pool, own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_GIVEN_UP", 1)
    # Else the caller may be given a connection that broke this very moment.
    monkeypatch.setattr(pool_module, "UNCHECKED_S", 0.0)
    assert ask(pool, BACK_S)
    with stopped(own_postgres), ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, pool, 3.0)
        wait_for(lambda: pool.usage().waiting_requests == 1, what="a caller")
        pool.close()
        assert not asked.result()
        assert pool._pool.closed


def test_the_library_still_counts_callers_who_have_left() -> None:
    """Why `Pool` bounds its callers itself. When this fails, psycopg_pool was mended: the bound,
    the replacement of its pool and decision 0017 may go.
    """
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/nothing"
    with ConnectionPool(
        url, min_size=1, max_waiting=3, reconnect_timeout=0.1, open=True, name="guard"
    ) as library:
        for _ in range(3):
            with pytest.raises(PoolTimeout):
                library.getconn(ASK_S)
        wait_for(lambda: library.get_stats()["pool_size"] == 0, what="it to give up connecting")

        with pytest.raises(TooManyRequests, match="already 3 requests waiting"):
            library.getconn(ASK_S)
        assert library.get_stats()["requests_waiting"] == 3, "none of them waits any more"
        assert library.get_stats()["pool_size"] == 0, "and it does not connect"

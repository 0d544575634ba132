"""Connections to Postgres: bounded, with a time limit on everything."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.failpoint import failpoint, step

Connection = psycopg.Connection[TupleRow]
UniqueViolation = errors.UniqueViolation

CONNECT_TIMEOUT_S = 3
# A statement of ours takes milliseconds; one that takes this long is in the way.
STATEMENT_TIMEOUT_MS = 10_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000
ACQUIRE_TIMEOUT_S = 5.0
# Threads that may wait for a connection. Pushes end together when Safaricom answers together: 256
# of them must find room beside the default of 20 connections.
WAITING_PER_CONNECTION = 16
# The pool's own attempts back off up to half a minute. Given up early, the next caller makes a
# fresh attempt, so that work goes on as soon as Postgres is back.
RECONNECT_TIMEOUT_S = 1.0
# Internal errors to psycopg, and yet no row is to blame: a session that stood still for too long,
# and a server that takes no writes any more since another one does.
_OUTAGES = (
    errors.IdleInTransactionSessionTimeout,
    errors.TransactionTimeout,
    errors.ReadOnlySqlTransaction,
)
# A connection that worked this short a time ago is not asked first whether it still does: that is
# a round trip of its own, and a Postgres that restarts is away for longer.
UNCHECKED_S = 0.25
# A dead network shows within about ten seconds instead of the kernel's hours.
_KEEPALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


@dataclass(frozen=True)
class Usage:
    """How busy a pool is: its limit, connections in use, threads that wait for one."""

    max_connections: int
    used_connections: int
    waiting_requests: int


class Pool:
    """A bounded set of connections. Every failure to reach Postgres is an UnavailableError."""

    def __init__(self, url: str, *, size: int, name: str, plans_once: bool = False) -> None:
        """`plans_once`: a statement is planned for any values, at its first use.

        For statements that are run again and again and whose plan is always the same.
        """
        self.name = name
        # When each connection last worked. Weak, because the pool throws connections away.
        self._worked_s: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._pool = ConnectionPool(
            url,
            min_size=min(2, size),
            max_size=size,
            max_waiting=WAITING_PER_CONNECTION * size,
            timeout=ACQUIRE_TIMEOUT_S,
            max_idle=300,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
            name=name,
            open=False,
            check=self._check,
            configure=_configure_planning_once if plans_once else _configure,
            kwargs={
                "autocommit": True,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": f"mpesa-gateway {name}",
                **_KEEPALIVE,
            },
        )

    def _check(self, conn: Connection) -> None:
        """One broken connection means a restart of Postgres: look at all of them at once.

        psycopg_pool would find them one at a time, with a growing pause after each. An idle
        connection has nothing to read until its server says goodbye or its network gives up, so
        that nobody pays for a question to the server each time.
        """
        if time.monotonic() - self._worked_s.get(conn, -UNCHECKED_S) < UNCHECKED_S:
            return
        try:
            if _has_news(conn):
                ConnectionPool.check_connection(conn)
        except psycopg.Error:
            self._pool.check()
            raise

    def open(self) -> None:
        """Start connecting, in the background: Postgres may come later."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """Close every connection; waits a moment for those in use."""
        self._pool.close(timeout=5.0)

    def usage(self) -> Usage:
        """How busy it is now."""
        stats = self._pool.get_stats()
        return Usage(
            stats["pool_max"],
            stats["pool_size"] - stats["pool_available"],
            stats.get("requests_waiting", 0),
        )

    @contextmanager
    def connection(self, name: str, timeout_s: float = ACQUIRE_TIMEOUT_S) -> Iterator[Connection]:
        """A connection in autocommit mode, for single statements. Raises UnavailableError.

        `name` is of the failpoints before and after.
        """
        with self._acquire(timeout_s) as conn, step(name):
            yield conn

    @contextmanager
    def _acquire(self, timeout_s: float) -> Iterator[Connection]:
        try:
            with self._pool.connection(timeout=timeout_s) as conn, _left_if_read_only(conn):
                yield conn
                # Noted here: a `reset` of the pool's would give back each by way of a thread.
                self._worked_s[conn] = time.monotonic()
        except (PoolTimeout, PoolClosed, TooManyRequests) as error:
            raise UnavailableError("Postgres does not answer") from error
        except (psycopg.OperationalError, psycopg.InterfaceError, *_OUTAGES) as error:
            raise UnavailableError(f"Postgres failed: {type(error).__name__}") from error

    @contextmanager
    def transaction(self, name: str, timeout_s: float = ACQUIRE_TIMEOUT_S) -> Iterator[Connection]:
        """A database transaction: committed at the end, rolled back by an exception.

        `name` is of the failpoints before and after the commit.
        """
        with self._acquire(timeout_s) as conn:
            with conn.transaction():
                yield conn
                failpoint(f"{name}.before_commit")
            failpoint(f"{name}.after_commit")


@contextmanager
def _left_if_read_only(conn: Connection) -> Iterator[None]:
    """After a fail-over the old server lives on as a standby: the next connection finds the new.

    The pool itself would keep this one, which is in order in all else.
    """
    try:
        yield
    except errors.ReadOnlySqlTransaction:
        conn.close()
        raise


def _has_news(conn: Connection) -> bool:
    """Whether an idle connection's socket can be read, or has failed. Raises psycopg.Error."""
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _configure(conn: Connection) -> None:
    """Per connection, because a server's own defaults may be weaker."""
    conn.execute(
        "SELECT set_config('synchronous_commit', 'on', false),"
        " set_config('timezone', 'UTC', false),"
        " set_config('statement_timeout', %s, false),"
        " set_config('lock_timeout', %s, false),"
        " set_config('idle_in_transaction_session_timeout', %s, false)",
        [str(STATEMENT_TIMEOUT_MS), str(STATEMENT_TIMEOUT_MS), str(IDLE_IN_TRANSACTION_TIMEOUT_MS)],
    )


def _configure_planning_once(conn: Connection) -> None:
    """Postgres itself goes on planning what looks dear in general: 0.3 ms for each callback.

    A plan that was made while a table was small must not read the whole of it once it has grown.
    """
    _configure(conn)
    conn.execute(
        "SELECT set_config('plan_cache_mode', 'force_generic_plan', false),"
        " set_config('enable_seqscan', 'off', false)"
    )


@contextmanager
def savepoint(conn: Connection) -> Iterator[None]:
    """Undo a part of a transaction when it raises, and keep the rest usable."""
    with conn.transaction():
        yield

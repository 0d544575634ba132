"""Connections to Postgres: bounded, with a time limit on everything."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from mpesa_gateway.errors import SchemaBehindError, UnavailableError
from mpesa_gateway.failpoint import failpoint, step
from mpesa_gateway.store import session
from mpesa_gateway.store.deadline import StatementDeadlineError
from mpesa_gateway.store.session import Session

Connection = psycopg.Connection[TupleRow]
UniqueViolation = errors.UniqueViolation

CONNECT_TIMEOUT_S = 3
ACQUIRE_TIMEOUT_S = 5.0
# Threads that may ask for a connection at once. Pushes end together when Safaricom answers
# together: 256 of them must find room beside the default of 20 connections.
WAITING_PER_CONNECTION = 16
# psycopg_pool remembers each caller whose time was over until a connection comes (decision 0017).
# After this many in a row its pool is replaced, so that a long outage takes no memory.
MAX_GIVEN_UP = 1000
# After a fail-over every connection is of the old server: all are left at once, this often at most.
DRAIN_PAUSE_S = 1.0
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
# What an operational error may also be about: one row that is too large for a limit of Postgres.
_LIMIT_OF_A_ROW = "54"
# A connection that worked this short a time ago is not asked first whether it still does: that is
# a round trip of its own, and a Postgres that restarts is away for longer.
UNCHECKED_S = 0.25
# A dead network shows within about ten seconds instead of the kernel's hours.
KEEPALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


# What a schema that is missing, or older than this release, answers to a statement of ours.
_SCHEMA_BEHIND = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.InvalidSchemaName,
)
BEHIND = (
    "the database's schema is missing or older than this release;"
    " run `mpesa-gateway migrate` (docs/upgrade.md)"
)
FORBIDDEN = (
    "the role of MPESA_DATABASE_URL may not use a table of ours:"
    " GRANT it, or use the role that runs `mpesa-gateway migrate`"
)


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
        self._url = url
        self._size = size
        self._configure = session.configure_planning_once if plans_once else session.configure
        self._lock = threading.Lock()
        self._asking = 0
        self._given_up = 0
        self._is_closed = False
        self._drained_s = -DRAIN_PAUSE_S
        # On the monotonic clock: since when nobody has been given a connection; None when all is
        # well.
        self.failing_since_s: float | None = None
        # When Postgres last had no room for a write.
        self.full_since_s: float | None = None
        # When each connection last worked. Weak, because the pool throws connections away.
        self._worked_s: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._pool = self._new_pool()

    def _new_pool(self) -> ConnectionPool[Session]:
        """It bounds no waiters: it counts those among them who have left (decision 0017)."""
        return ConnectionPool(
            self._url,
            min_size=min(2, self._size),
            max_size=self._size,
            timeout=ACQUIRE_TIMEOUT_S,
            max_idle=300,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
            name=self.name,
            open=False,
            check=self._check,
            configure=self._configure,
            connection_class=Session,
            kwargs={
                "autocommit": True,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": f"mpesa-gateway {self.name}",
                **KEEPALIVE,
            },
        )

    def _check(self, conn: Session) -> None:
        """One broken connection means a restart of Postgres: all are replaced at once.

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
            self._drain(conn)
            raise

    def _drain(self, failed: Session) -> None:
        """Replace every connection, as one of them failed in a way that is its server's."""
        now = time.monotonic()
        with self._lock:
            if failed.opened_s <= self._drained_s or now - self._drained_s < DRAIN_PAUSE_S:
                return
            self._drained_s = now
        self._pool.drain()

    def open(self) -> None:
        """Start connecting, in the background: Postgres may come later."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """Close every connection; waits a moment for those in use."""
        with self._lock:
            self._is_closed = True
        self._pool.close(timeout=5.0)

    def usage(self) -> Usage:
        """How busy it is now."""
        stats = self._pool.get_stats()
        return Usage(stats["pool_max"], stats["pool_size"] - stats["pool_available"], self._asking)

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
            with self._borrowed(timeout_s) as conn, self._left_with_its_server(conn):
                yield conn
                # Noted here: a `reset` of the pool's would give back each by way of a thread.
                self._worked_s[conn] = time.monotonic()
        except (PoolTimeout, PoolClosed, TooManyRequests) as error:
            raise UnavailableError("Postgres does not answer") from error
        except psycopg.Error as error:
            if isinstance(error, _SCHEMA_BEHIND):
                raise SchemaBehindError(BEHIND) from error
            if isinstance(error, errors.InsufficientPrivilege):
                raise SchemaBehindError(FORBIDDEN) from error
            if not is_outage(error):
                raise
            raise UnavailableError(f"Postgres failed: {type(error).__name__}") from error

    @contextmanager
    def _left_with_its_server(self, conn: Session) -> Iterator[None]:
        """After a fail-over the old server may live on: as a standby, or as one that stands still.

        The pool itself would go on using it. The next connection finds the new one. A connection
        that the server ended was not the only one.
        """
        try:
            yield
        except errors.ReadOnlySqlTransaction:
            conn.close()
            self._drain(conn)
            raise
        except StatementDeadlineError:
            self._drain(conn)
            raise
        except errors.DiskFull:
            self.full_since_s = time.monotonic()
            raise
        except psycopg.OperationalError:
            if conn.closed:
                self._drain(conn)
            raise

    @contextmanager
    def _borrowed(self, timeout_s: float) -> Iterator[Session]:
        """A connection, given back to the pool that it came from. Raises what that pool raises."""
        pool = self._pool
        conn = self._get(pool, timeout_s)
        try:
            with conn:
                yield conn
        finally:
            pool.putconn(conn)

    def _get(self, pool: ConnectionPool[Session], timeout_s: float) -> Session:
        with self._lock:
            if self._asking >= WAITING_PER_CONNECTION * self._size:
                raise TooManyRequests(f"{self._asking} callers wait for a connection already")
            self._asking += 1
        try:
            conn = pool.getconn(timeout_s)
        except PoolTimeout:
            if self.failing_since_s is None:
                self.failing_since_s = time.monotonic()
            self._note_given_up(pool)
            raise
        finally:
            with self._lock:
                self._asking -= 1
        self._given_up = 0
        self.failing_since_s = None
        return conn

    def _note_given_up(self, pool: ConnectionPool[Session]) -> None:
        """Replace the pool once it remembers too many callers who have left."""
        with self._lock:
            self._given_up += 1
            if self._given_up < MAX_GIVEN_UP or pool is not self._pool or self._is_closed:
                return
            self._given_up = 0
            self._pool = self._new_pool()
            self._pool.open(wait=False)
        pool.close(timeout=0)

    @contextmanager
    def transaction(self, name: str, timeout_s: float = ACQUIRE_TIMEOUT_S) -> Iterator[Connection]:
        """A database transaction: committed at the end, rolled back by an exception.

        `name` is of the failpoints before and after the commit.
        """
        with self._acquire(timeout_s) as conn:
            with session.transaction(conn):
                yield conn
                failpoint(f"{name}.before_commit")
            failpoint(f"{name}.after_commit")


def is_outage(error: Exception) -> bool:
    """Whether Postgres, or the way to it, is to blame, and not what it was asked."""
    if isinstance(error, (*_SCHEMA_BEHIND, errors.InsufficientPrivilege)):
        return True
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, *_OUTAGES)):
        return False
    return not (error.sqlstate or "").startswith(_LIMIT_OF_A_ROW)


def _has_news(conn: Connection) -> bool:
    """Whether an idle connection's socket can be read, or has failed. Raises psycopg.Error."""
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def savepoint(conn: Connection) -> Iterator[None]:
    """Undo a part of a transaction when it raises, and keep the rest usable."""
    with conn.transaction():
        yield

"""Session settings, on a direct connection and through a pooler.

On a direct connection the settings are set once and hold until it closes. A pooler in transaction
mode gives each transaction whichever server connection is free: a setting made for the session
would be lost for us and would leak to another client. There every transaction begins with the
settings as `SET LOCAL`, nothing is prepared, and a single statement is a transaction of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import Row

from mpesa_gateway.store.deadline import STATEMENT_TIMEOUT_MS, BoundedConnection

IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000

# A server's or a role's own defaults may be weaker.
SETTINGS: dict[str, str] = {
    "synchronous_commit": "on",
    "timezone": "UTC",
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    "lock_timeout": str(STATEMENT_TIMEOUT_MS),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
}
# By itself Postgres goes on planning a statement that looks expensive in general: 0.3 ms for each
# callback. A plan that was made while a table was small must not scan the whole table later.
PLANNING_ONCE: dict[str, str] = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}


class Session(BoundedConnection):
    """A connection that knows whether a pooler stands between it and Postgres."""

    is_pooled = False
    # One simple query: BEGIN and a SET LOCAL for each setting. Empty on a direct connection.
    begin = b""


class _PooledCursor(psycopg.Cursor[Row]):
    """Runs a statement outside of a transaction in one of its own, with our settings."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Like psycopg's own; the statement is committed when this returns."""
        session = self.connection
        assert isinstance(session, Session), type(session)
        if session.pgconn.transaction_status != TransactionStatus.IDLE:
            return super().execute(query, params, **options)
        with transaction(session):
            return super().execute(query, params, **options)


def is_through_pooler(conn: psycopg.Connection[Any]) -> bool:
    """Whether the process that answers is not the one that the handshake named.

    A pooler invents the number (a cancel key of its own); a TCP proxy passes Postgres's on.
    """
    row = conn.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return bool(row[0] != conn.info.backend_pid)


def configure(session: Session) -> None:
    """Make the settings hold for whatever the session runs. Called once, after it connected."""
    _configure(session, SETTINGS)


def configure_planning_once(session: Session) -> None:
    """The same, and every statement is planned for any values, at its first use."""
    _configure(session, {**SETTINGS, **PLANNING_ONCE})


def _configure(session: Session, settings: Mapping[str, str]) -> None:
    if is_through_pooler(session):
        local = "".join(f"; SET LOCAL {name} = '{value}'" for name, value in settings.items())
        session.is_pooled = True
        session.begin = f"BEGIN{local}".encode()
        # Another client's statement may have the same name on the server connection we are given.
        session.prepare_threshold = None
        session.cursor_factory = _PooledCursor
        # Fails here, and not in a payment, where the pooler allows no transactions.
        session.execute("SELECT 1")
        return
    calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    session.execute(
        f"SELECT {calls}".encode(), [word for setting in settings.items() for word in setting]
    )


@contextmanager
def transaction(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Run a database transaction with our settings: committed at the end, rolled back if it raises.

    Inside of a transaction it is a savepoint, like psycopg's own.
    """
    is_outermost = conn.pgconn.transaction_status == TransactionStatus.IDLE
    if not (is_outermost and isinstance(conn, Session) and conn.is_pooled):
        with conn.transaction():
            yield
        return
    # Not psycopg's block: it sends BEGIN by itself, which would be one more round trip.
    psycopg.Cursor(conn).execute(conn.begin)
    try:
        yield
        _refuse_failed(conn)
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            conn.rollback()
        raise
    conn.commit()


def _refuse_failed(conn: Session) -> None:
    """Postgres answers COMMIT with ROLLBACK after an error that somebody caught, and no error."""
    if conn.pgconn.transaction_status == TransactionStatus.INERROR:
        raise errors.InFailedSqlTransaction("the transaction had failed before its commit")

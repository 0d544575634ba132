"""Whose turn it is to migrate: one advisory lock, held by an open transaction.

The transaction has a connection of its own. A session does not hold the lock: a pooler in
transaction mode hands a session's lock to whoever comes next. The transaction is idle between its
statements, so that it has no snapshot for whose end a concurrent index build would wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg

from mpesa_gateway.errors import SchemaError, UnavailableError
from mpesa_gateway.store.pool import Connection

# Any number, the same in every release.
_LOCK = 7_331_254
WAIT_STEP_S = 0.5
# How long another process may hold the turn before we give up: an index of a big table takes time.
TURN_PATIENCE_S = 3600.0

# A role's or a database's own limits would end the transaction in the middle of a migration.
_NO_LIMITS = """
SELECT set_config(name, '0', true)
  FROM pg_settings
 WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')
"""


class Turn:
    """The right to migrate, for as long as its connection lives."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        row = conn.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        self.pid: int = row[0]

    def check(self) -> None:
        """Raises SchemaError when the lock was lost: another process may be migrating now."""
        try:
            self._conn.execute("SELECT 1")
        except psycopg.Error as error:
            raise SchemaError(
                "the connection that holds the migration lock was cut, by Postgres or by a"
                " pooler's idle_transaction_timeout; run it again"
            ) from error


@contextmanager
def take_turn(connect: Callable[[], Connection], report: Callable[[str], None]) -> Iterator[Turn]:
    """Wait until no other process migrates, and keep others waiting until the block ends.

    Raises SchemaError after an hour.
    """
    with closing(connect()) as conn:
        _wait_for_lock(conn, report)
        yield Turn(conn)


def _wait_for_lock(conn: Connection, report: Callable[[str], None]) -> None:
    """Ask again and again: a statement that waited would hold a snapshot."""
    give_up = time.monotonic() + TURN_PATIENCE_S
    told = False
    while not _try_lock(conn):
        if time.monotonic() >= give_up:
            raise SchemaError("another process has been migrating for an hour; is it stuck?")
        if not told:
            report("another process migrates; waiting for it")
            told = True
        time.sleep(WAIT_STEP_S)


def _try_lock(conn: Connection) -> bool:
    """Leaves a transaction open only when it has the lock."""
    try:
        conn.execute("BEGIN")
        conn.execute(_NO_LIMITS)
        if conn.execute(
            "SELECT pg_try_advisory_xact_lock(%(lock)s)", {"lock": _LOCK}
        ).fetchone() == (True,):
            return True
        conn.rollback()
    except psycopg.OperationalError as error:
        raise UnavailableError("Postgres went away while waiting for the migration lock") from error
    return False

"""A deadline on our side for every statement, commits included.

Postgres' own `statement_timeout` needs a Postgres that still runs. A server that stands still while
its kernel acknowledges what is sent would be waited for permanently; so would a commit that waits
for a standby, which no setting of Postgres ends (docs/decisions/0021).
"""

from __future__ import annotations

import contextlib
import time
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

# A statement of ours takes milliseconds; one that takes this long is in the way.
STATEMENT_TIMEOUT_MS = 10_000
# Postgres ends what it can end itself first.
STATEMENT_DEADLINE_S = STATEMENT_TIMEOUT_MS / 1000 + 2.0
# A server that still runs frees the connection's process at once.
CANCEL_TIMEOUT_S = 1.0
# psycopg's own: how often a wait looks whether it was interrupted.
_LOOK_S = 0.1

Value = TypeVar("Value")


class StatementDeadlineError(psycopg.OperationalError):
    """Nothing came back from Postgres for longer than a statement may take."""


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that is given up, and closed, when a statement gets no answer in time."""

    # None: a statement may take as long as it takes.
    deadline_s: float | None = STATEMENT_DEADLINE_S

    def __init__(self, pgconn: psycopg.pq.abc.PGconn) -> None:
        super().__init__(pgconn)
        # On the monotonic clock.
        self.opened_s = time.monotonic()

    def wait(
        self, gen: PQGen[Value], interval: float = _LOOK_S, timeout: float | None = None
    ) -> Value:
        """Wait as psycopg does. Raises StatementDeadlineError, with the connection closed."""
        if timeout is not None or self.deadline_s is None:
            return super().wait(gen, interval, timeout)
        begun_s = time.monotonic()
        try:
            return super().wait(gen, interval, self.deadline_s)
        except psycopg.OperationalError as error:
            if time.monotonic() - begun_s < self.deadline_s:
                raise
            self._leave()
            raise StatementDeadlineError(f"no answer for {self.deadline_s:.0f} s") from error

    def _leave(self) -> None:
        """Close it. Postgres is asked to end the statement, else a commit that waits for a standby
        would hold the server's process, and the next connection one more.
        """
        with contextlib.suppress(Exception):
            self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        self.close()

"""Lets old data go in small batches, where a setting says so: one batch of each kind in a round.

A pass walks a table by id, so it needs no index of its own and no batch grows with the table. What
it must leave behind (a webhook that waits, an open conflict) is looked at again by the next pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mpesa_gateway.store import retention
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

CALLBACK_BODIES = "callback_bodies"
ATTEMPTS = "attempts"
# Between batches of a pass, for the whole cluster; and between passes.
PAUSE = timedelta(seconds=1)
REST = timedelta(hours=24)


@dataclass(frozen=True)
class Retention:
    """How long to keep what; zero is for ever."""

    pool: Pool
    clock: Callable[[], datetime]
    callback_bodies: timedelta
    attempts: timedelta

    def run(self) -> int:
        """One batch of each kind that is due; how many rows. Raises UnavailableError."""
        return self._batch(CALLBACK_BODIES, self.callback_bodies) + self._batch(
            ATTEMPTS, self.attempts
        )

    def _batch(self, name: str, keep: timedelta) -> int:
        if not keep:
            return 0
        now = self.clock()
        with self.pool.transaction("retention.batch") as conn:
            retention.begin(conn, name, now)
            current = retention.lock_due(conn, name, now)
            if current is None:
                return 0
            end, removed = _remove(conn, current, now - keep, now)
            total = current.removed + removed
            if end is None:
                retention.save(conn, name, position=0, removed=0, next_at=now + REST)
            else:
                retention.save(conn, name, position=end, removed=total, next_at=now + PAUSE)
        if removed:
            LOGGER.info("retention batch", what=name, removed=removed)
        if end is None and total:
            LOGGER.info("retention pass ended", what=name, removed=total)
        return removed


def _remove(
    conn: Connection, current: retention.Pass, before: datetime, now: datetime
) -> tuple[int | None, int]:
    """Where the batch ended, None at the end of the pass; and how many rows it took."""
    if current.name == CALLBACK_BODIES:
        end = retention.find_callbacks_end(conn, current.position, before)
        if end is None:
            return None, 0
        return end, retention.remove_bodies(conn, current.position, end, before=before, now=now)
    end = retention.find_attempts_end(conn, current.position, before)
    if end is None:
        return None, 0
    return end, retention.remove_attempts(conn, current.position, end, before=before)

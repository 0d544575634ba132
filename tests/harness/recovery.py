"""How long the work that was there at a kill took to be done: looked at four times a second."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
from psycopg.rows import dict_row

from harness.chaos_stack import ChaosStack, Server

LOOK_EVERY_S = 0.25
# Safaricom itself leaves these pushes without an answer for 20 s, whoever lives.
UNANSWERED_BY_SAFARICOM = "%8001"

# What was there at a moment and is not done: pushes under way, callbacks that are not applied,
# webhooks to endpoints in order that were not tried, or whose try has no result.
BACKLOG = """
SELECT (SELECT count(*) FROM transactions WHERE push_lease_until IS NOT NULL
            AND phone NOT LIKE %(unanswered)s AND created_at <= %(at)s) AS pushes,
       (SELECT count(*) FROM callbacks WHERE state = 'RECEIVED' AND received_at <= %(at)s)
            AS callbacks,
       (SELECT count(*) FROM deliveries WHERE state = 'PENDING' AND created_at <= %(at)s
            AND origin = %(steady)s AND (attempts_made = 0 OR lease_until IS NOT NULL))
            AS deliveries
"""


@dataclass(eq=False)
class Recovery:
    """What followed one kill, or the end of all faults. Times are of time.time()."""

    kind: str
    began_at: float
    servers: tuple[Server, ...] = field(default=(), repr=False)
    ready_at: float = 0.0
    empty_at: float = 0.0
    # What was there to be done when it was looked at for the last time before it was done.
    last: dict[str, int] = field(default_factory=dict)

    @property
    def took_s(self) -> float | None:
        """Until what died answers and the work is done; None when that never was."""
        if not self.empty_at or (self.servers and not self.ready_at):
            return None
        return round(self.over_at - self.began_at, 2)

    @property
    def over_at(self) -> float:
        """When what died answered and the work was done, if both have been."""
        return max(self.ready_at, self.empty_at)


class Watch:
    """A thread that looks after each recovery until it is over."""

    def __init__(self, stack: ChaosStack) -> None:
        self._stack = stack
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.recoveries: list[Recovery] = []
        self.backlog = 0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """No more looks."""
        self._stopping.set()
        self._thread.join()

    def begin(self, kind: str, *servers: Server) -> Recovery:
        """Something died just now, or healed; `servers` must answer again."""
        recovery = Recovery(kind, time.time(), servers)
        self.recoveries.append(recovery)
        return recovery

    def is_over(self, *, for_s: float) -> bool:
        """Whether every recovery is, and has been for so long."""
        return all(
            it.took_s is not None and time.time() - it.over_at >= for_s for it in self.recoveries
        )

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            for it in [it for it in list(self.recoveries) if it.took_s is None]:
                self._look(it)
            with contextlib.suppress(psycopg.Error):
                self.backlog = sum(self._count(time.time()).values())

    def _look(self, recovery: Recovery) -> None:
        servers = recovery.servers
        if servers and not recovery.ready_at and all(it.is_ready() for it in servers):
            recovery.ready_at = time.time()
        if not recovery.empty_at:
            with contextlib.suppress(psycopg.Error):
                left = self._count(recovery.began_at)
                if any(left.values()):
                    recovery.last = left
                else:
                    recovery.empty_at = time.time()

    def _count(self, at: float) -> dict[str, int]:
        steady = f"http://127.0.0.1:{self._stack.receiver.steady.port}"
        values = {
            "at": datetime.fromtimestamp(at, UTC),
            "steady": steady,
            "unanswered": UNANSWERED_BY_SAFARICOM,
        }
        with psycopg.connect(
            self._stack.database_url, connect_timeout=3, row_factory=dict_row
        ) as conn:
            row = conn.execute(BACKLOG, values).fetchone()
        assert row is not None
        return row

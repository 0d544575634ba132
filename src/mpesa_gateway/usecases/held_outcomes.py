"""Outcomes of pushes that Postgres could not take: held in memory, saved when it is back.

Safaricom says once what became of a push, and no query brings back a CheckoutRequestID. While an
outcome is held its push's lease is renewed, as far as Postgres takes that; an outcome that comes
after the sweeper has called the push unknown is used all the same (`pushes.record_outcome`).
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from mpesa_gateway.domain.push import PushClass, PushOutcome
from mpesa_gateway.domain.transaction import Transaction
from mpesa_gateway.domain.work import Work
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.spool import Spool
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases.push_leases import PushLeases
from mpesa_gateway.usecases.pushes import record_outcome

LOGGER = get_logger(__name__)

# No push begins without Postgres, so that no more are held than were in flight when it went; one
# takes about 2 KiB.
MAX_HELD = 4096
PAUSE_S = 0.5
# At the end; gunicorn grants 30 s for everything, and the inbox has taken its part.
STOP_S = 5.0


@dataclass(frozen=True)
class HeldOutcome:
    """What became of a push: its row and its payment's id, and its entry in the spool."""

    row: int
    transaction_id: str
    outcome: PushOutcome
    entry: str | None = None
    # What keeps its lease alive.
    lease: ExitStack = field(default_factory=ExitStack)


class HeldOutcomes:
    """Goes on saving, in a thread, for as long as the process lives."""

    def __init__(
        self,
        pool: Pool,
        leases: PushLeases,
        clock: Callable[[], datetime],
        first_query_after: timedelta,
        spool: Spool | None = None,
    ) -> None:
        self._spool = spool
        self._pool = pool
        self._leases = leases
        self._clock = clock
        self._first_query_after = first_query_after
        self._notify: Callable[[list[Work]], None] = lambda _: None
        self._held: deque[HeldOutcome] = deque()
        self._changed = threading.Condition()
        self._stop_by_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="held-outcomes", daemon=True)

    def start(self, notify: Callable[[list[Work]], None]) -> None:
        """Begin to save, with what a process before this one left in the spool.

        `notify` announces the work that follows from an outcome.
        """
        self._notify = notify
        for entry, content in self._spool.load() if self._spool is not None else ():
            try:
                held = _parse(content, entry)
            except (ValueError, KeyError, TypeError):
                assert self._spool is not None
                self._spool.quarantine(entry)
                continue
            self._hold(held)
        self._thread.start()

    def stop(self) -> None:
        """Save what is held, for a few seconds if Postgres is away; say what is lost."""
        with self._changed:
            self._stop_by_s = time.monotonic() + STOP_S
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_S + 2)
        for held in self._held:
            if held.entry is None:
                LOGGER.error(
                    "outcome of a push is lost; the sweeper will end the push",
                    transaction_id=held.transaction_id,
                    outcome=held.outcome.kind,
                )

    def write_down(self, transaction: Transaction, outcome: PushOutcome) -> str | None:
        """Put an outcome that could not be saved at once into the spool; its entry's name."""
        if self._spool is None:
            return None
        content = {
            "row": transaction.row,
            "transaction_id": str(transaction.id),
            "outcome": asdict(outcome),
        }
        return self._spool.put(json.dumps(content).encode())

    def forget(self, entry: str | None) -> None:
        """Take an outcome that was saved out of the spool."""
        if self._spool is not None and entry is not None:
            self._spool.remove(entry)

    def hold(
        self, transaction: Transaction, outcome: PushOutcome, entry: str | None = None
    ) -> bool:
        """Take an outcome over; False when there is no room. Its lease is renewed from here on."""
        return self._hold(HeldOutcome(transaction.row, str(transaction.id), outcome, entry))

    def _hold(self, held: HeldOutcome) -> bool:
        with self._changed:
            if len(self._held) >= MAX_HELD or self._stop_by_s is not None:
                return False
            held.lease.enter_context(self._leases.kept(held.row))
            self._held.append(held)
            metrics.push_outcomes_held.set(len(self._held))
            self._changed.notify()
            return True

    def _run(self) -> None:
        while (held := self._next()) is not None:
            try:
                _, effects = record_outcome(
                    self._pool,
                    uuid.UUID(held.transaction_id),
                    held.outcome,
                    self._first_query_after,
                    self._clock(),
                )
            except UnavailableError:
                with self._changed:
                    self._changed.wait(PAUSE_S)
                continue
            except Exception:
                LOGGER.exception(
                    "outcome of a push cannot be saved; the sweeper will end the push",
                    transaction_id=held.transaction_id,
                    outcome=held.outcome.kind,
                )
            else:
                self._notify(effects.work)
                LOGGER.info("outcome of a push saved late", transaction_id=held.transaction_id)
            with self._changed:
                self._held.popleft().lease.close()
                self.forget(held.entry)
                metrics.push_outcomes_held.set(len(self._held))

    def _next(self) -> HeldOutcome | None:
        """The oldest, once there is one; None at the end."""
        with self._changed:
            while True:
                stop_by_s = self._stop_by_s
                if stop_by_s is not None and (not self._held or time.monotonic() >= stop_by_s):
                    return None
                if self._held:
                    return self._held[0]
                self._changed.wait()


def _parse(content: bytes, entry: str) -> HeldOutcome:
    fields = json.loads(content)
    outcome = {**fields["outcome"], "kind": PushClass(fields["outcome"]["kind"])}
    return HeldOutcome(
        int(fields["row"]), str(fields["transaction_id"]), PushOutcome(**outcome), entry
    )

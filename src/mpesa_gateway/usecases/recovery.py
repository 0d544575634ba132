"""Is this the database that the process knew? If not: hold new payments, write again, tell.

Every process looks each second at whether the newest rows that it saw are still there, and at once
when a payment meets a server that it has not examined (docs/decisions/0026).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from mpesa_gateway.clients.high_water import HighWater
from mpesa_gateway.errors import RecoveryError, UnavailableError, UnknownServerError
from mpesa_gateway.store import identity, recovery
from mpesa_gateway.store.identity import History, Incarnation, Marks, Sight
from mpesa_gateway.store.inbox import NewCallback
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.store.recovery import Hold
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases.acknowledged import Acknowledged, KnownWebhook
from mpesa_gateway.usecases.database_gauges import DurabilityGauge
from mpesa_gateway.usecases.rewriting import Rewriting, find_missing

LOGGER = get_logger(__name__)

LOOK_EVERY_S = 1.0
LOOK_TIMEOUT_S = 2.0
# After another server has taken over, the other processes need this long to look too: a client
# whose payment only they know about must not be charged again by this one.
SETTLE_S = 3.0
# In between the mark in Redis is written when it changes only.
MARK_EVERY_S = 60.0
GATEWAY = "gateway"
LOST = (
    "The database does not hold what this gateway had acknowledged: it was restored, or a replica"
    " that lagged behind took over."
)
HELD_ANSWER = (
    "The database has lost payments, and no operator has accepted that yet. Nothing was created."
    " Repeat the request with the same key."
)
SETTLING = "the gateway has reached another database server and is examining it"


class Recovery:
    """What a process knows about its database, and whether new payments may start."""

    def __init__(
        self,
        pool: Pool,
        *,
        clock: Callable[[], datetime],
        rewriting: Rewriting,
        high_water: HighWater,
        durability: DurabilityGauge,
    ) -> None:
        self.acknowledged = Acknowledged()
        self._pool = pool
        self._clock = clock
        self._rewriting = rewriting
        self._high_water = high_water
        self._durability = durability
        self._looking = threading.Lock()
        self._known: Incarnation | None = None
        self._history: History | None = None
        self._marks = Marks()
        self._hold: Hold | None = None
        self._settled_s = 0.0
        self._marked: uuid.UUID | None = None
        self._marked_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def forget(self) -> None:
        """Begin as a fresh process does, but for the mark in Redis."""
        with self._looking:
            self._forget()

    def _forget(self) -> None:
        self.acknowledged = Acknowledged()
        self._known, self._history, self._hold = None, None, None
        self._marks = Marks()

    def remember_callbacks(self, kept: Sequence[NewCallback]) -> None:
        """They were committed, and are about to be answered 200."""
        self.acknowledged.callbacks(kept)

    def remember_webhook(self, delivered: KnownWebhook) -> None:
        """An endpoint took it."""
        self.acknowledged.webhook(delivered)

    def admit(self, conn: Connection) -> None:
        """Let a new payment start in this database transaction.

        Raises RecoveryError while there is a hold, UnknownServerError when `examine` must come
        first, UnavailableError while other processes may still be examining.
        """
        if self._hold is not None:
            raise RecoveryError(HELD_ANSWER)
        found = identity.read_admission(conn, self._marks.payment)
        if found.is_held:
            raise RecoveryError(HELD_ANSWER)
        if found.incarnation != self._known or not found.has_payment:
            raise UnknownServerError(SETTLING)
        if time.monotonic() < self._settled_s:
            raise UnavailableError(SETTLING)

    def examine(self) -> None:
        """Look at the database now. Raises UnavailableError."""
        if not self._looking.acquire(timeout=LOOK_TIMEOUT_S):
            raise UnavailableError(SETTLING)
        try:
            with self._pool.connection("recovery.look", LOOK_TIMEOUT_S) as conn:
                self._look(conn)
        finally:
            self._looking.release()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                self.examine()
                self._tell_later_processes()
            except UnavailableError:
                # Every other part of the process says so already.
                continue
            except Exception:
                LOGGER.exception("the database could not be examined")

    def _look(self, conn: Connection) -> None:
        if self._known is None and self._marks == Marks():
            self._marks = Marks(payment=self._high_water.read())
        sight = identity.look(conn, self._marks)
        if sight.is_standby:
            # It may lag behind, and nothing can be written here.
            return
        history = identity.find_history(conn)
        if sight.incarnation != self._known or not (sight.has_payment and sight.has_callback):
            self._examine(conn, sight, history)
        self._obey(conn)
        self._known, self._history, self._marks = sight.incarnation, history, sight.marks
        self.acknowledged.trim(self._clock())
        self._durability.refresh(conn)

    def _examine(self, conn: Connection, sight: Sight, history: History | None) -> None:
        """Another server, another database, or rows that are gone."""
        missing = find_missing(conn, self.acknowledged.copy())
        if sight.has_payment and sight.has_callback and not missing.is_loss:
            if self._known is not None and not self._continues(history):
                self._settled_s = time.monotonic() + SETTLE_S
            return
        if self._hold is None or missing:
            metrics.acknowledged_lost_total.inc(max(len(missing), 1))
        LOGGER.error(
            "the database has lost what it acknowledged; no new payment starts",
            missing=len(missing),
            payment=str(self._marks.payment),
        )
        self._hold = self._hold or Hold(uuid.uuid4(), self._clock(), GATEWAY, LOST)
        metrics.recovery_hold.set(1)
        recovery.write_hold(conn, self._hold)
        self._rewriting.write_again(missing)

    def _continues(self, history: History | None) -> bool:
        before = self._history
        return history is not None and before is not None and history.continues(before)

    def _obey(self, conn: Connection) -> None:
        """Keep the hold on whatever database this is, until it is accepted there."""
        if self._hold is not None:
            recovery.write_hold(conn, self._hold)
        found = recovery.find_hold(conn, None if self._hold is None else self._hold.id)
        self._hold = found if found is not None and found.accepted_at is None else None
        metrics.recovery_hold.set(0 if self._hold is None else 1)

    def _tell_later_processes(self) -> None:
        payment, now_s = self._marks.payment, time.monotonic()
        if payment is None or self._hold is not None:
            return
        if payment != self._marked or now_s - self._marked_s > MARK_EVERY_S:
            self._high_water.write(payment)
            self._marked, self._marked_s = payment, now_s

"""Applies callbacks from the inbox: one database transaction from row to webhook delivery.

No lease: a crash rolls everything back and the sweeper offers the row again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store import callbacks
from mpesa_gateway.store.callbacks import Callback
from mpesa_gateway.store.pool import Pool, UniqueViolation
from mpesa_gateway.telemetry import metrics, tracing
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases.applications import Application, Done, Rules
from mpesa_gateway.usecases.finalize import Effects

LOGGER = get_logger(__name__)

# A callback that makes our own code fail is tried this often, then put aside for a person.
POISON_AFTER = 5
POISON_RETRY = timedelta(seconds=5)


@dataclass(frozen=True)
class Callbacks:
    """The collaborators and settings that applying a callback needs."""

    pool: Pool
    merchants: Callable[[], Snapshot]
    clock: Callable[[], datetime]
    token_required: bool
    first_query_after: timedelta

    def apply(self, callback_id: int) -> Effects:
        """Apply a callback, if it still waits. Safe to call at any time, by anybody."""
        try:
            return self._apply_once(callback_id)
        except UniqueViolation:
            # Its receipt was committed for another transaction just now: look again and see it.
            return self._apply_once(callback_id)

    def count_failure(self, callback_id: int) -> None:
        """Our own code failed on it: later again, and in the end into quarantine."""
        now = self.clock()
        with self.pool.connection("callback.count_failure") as conn:
            poisoned = callbacks.count_failure(
                conn, callback_id, retry_at=now + POISON_RETRY, poison_after=POISON_AFTER, now=now
            )
        if poisoned:
            metrics.callbacks_total.labels("quarantined").inc()
            LOGGER.error("callback put into quarantine", callback=callback_id)

    def _apply_once(self, callback_id: int) -> Effects:
        now, started_at_ns = self.clock(), tracing.started_at_ns()
        rules = Rules(self.merchants, self.token_required, self.first_query_after)
        # The span ends after the commit, yet its parent is in the row that the commit is about.
        with ExitStack() as stack:
            with self.pool.transaction("callback.apply") as conn:
                callback = callbacks.lock_received(conn, callback_id)
                if callback is None:
                    return Effects()
                span = stack.enter_context(_span(callback, started_at_ns))
                application = Application(conn, rules, callback, now)
                done = application.apply()
                callbacks.save_outcome(
                    conn,
                    callback.id,
                    done.state,
                    done.outcome,
                    transaction=done.transaction,
                    checkout_request_id=done.checkout_request_id,
                    now=now,
                )
            application.effects.count()
            span.set(state=done.state, outcome=done.outcome)
            self._observe(callback, done)
        return application.effects

    def _observe(self, callback: Callback, done: Done) -> None:
        lag_s = max((self.clock() - callback.received_at).total_seconds(), 0.0)
        metrics.callback_lag_seconds.observe(lag_s, tracing.exemplar())
        label = "quarantined" if done.state == "QUARANTINED" else done.outcome
        metrics.callbacks_total.labels(label).inc()
        log = LOGGER.warning if done.state == "QUARANTINED" else LOGGER.info
        log("callback applied", callback=callback.id, state=done.state, outcome=done.outcome)


def _span(callback: Callback, started_at_ns: int | None) -> tracing.Span:
    return tracing.span(
        "callback apply",
        parent=callback.traceparent,
        kind="consumer",
        started_at_ns=started_at_ns,
        callback=callback.id,
    )

"""One try of one webhook: claim and attempt row committed, POST, result committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mpesa_gateway import metrics, tracing
from mpesa_gateway.clients.webhooks import WebhookClient
from mpesa_gateway.domain.delivery import (
    PARK_AFTER_FAILURES,
    Attempt,
    AttemptOutcome,
    DeliveryState,
    NextTry,
    after_attempt,
    park_until,
)
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.signature import webhook_headers
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.log import get_logger
from mpesa_gateway.merchants import Snapshot
from mpesa_gateway.store import deliveries, endpoints
from mpesa_gateway.store.deliveries import Delivery
from mpesa_gateway.store.endpoints import FailingEndpoint
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.usecases.gate import Gate

LOGGER = get_logger(__name__)

# The merchant's file is away (a roll-out, a mistake): nobody can sign, nothing is dropped.
MERCHANT_WAIT = timedelta(minutes=1)
# How many parked deliveries one recovery offers at once; the rest come due by themselves.
WAKE_LIMIT = 1000


@dataclass(frozen=True)
class _Claimed:
    """A delivery that is ours to try, until the lease ends."""

    delivery: Delivery
    merchant: Merchant
    claim: int
    number: int
    failures: int
    # Before its first try; None for a later one, and where the endpoint kept us from trying.
    waited_s: float | None


@dataclass(frozen=True)
class Deliveries:
    """The collaborators and settings that sending webhooks needs."""

    pool: Pool
    webhooks: WebhookClient
    merchants: Callable[[], Snapshot]
    clock: Callable[[], datetime]
    lease: timedelta
    gate: Gate

    def attempt(self, delivery_id: int) -> list[Work]:
        """Try a delivery, if it is due. What to do next is returned. Safe to call at any time."""
        claimed = self._claim(delivery_id)
        if claimed is None:
            return []
        if claimed.waited_s is not None:
            metrics.webhook_first_attempt_lag_seconds.observe(claimed.waited_s)
        delivery = claimed.delivery
        try:
            woken = self._try(claimed)
        finally:
            waiting = self.gate.leave(delivery.origin)
        return [Work(WorkKind.DELIVERY, it) for it in dict.fromkeys([*waiting, *woken])]

    def _try(self, claimed: _Claimed) -> list[int]:
        delivery, now = claimed.delivery, self.clock()
        with tracing.span(
            "webhook attempt",
            parent=delivery.traceparent,
            kind="client",
            delivery=delivery.id,
            attempt=claimed.number,
        ) as span:
            tracing.follow(delivery.public_id, delivery.traceparent)
            headers = webhook_headers(
                delivery.webhook_id, claimed.merchant.webhook_secrets, delivery.body, now
            )
            # Not signed: it names this try, and the bytes stay equal in all of them.
            headers |= {"traceparent": span.traceparent} if span.traceparent else {}
            attempt = self.webhooks.post(delivery.url, delivery.body, headers, now)
            span.set(
                outcome=attempt.outcome.value,
                status=attempt.response_status_code,
                reason=attempt.reason,
            )
            return self._finish(claimed, attempt)

    def _claim(self, delivery_id: int) -> _Claimed | None:
        """Who gets a claim is inside the gate, and must leave it."""
        entered: list[str] = []
        try:
            return self._claim_and_enter(delivery_id, entered)
        except BaseException:
            # Also after a commit that was done and not heard of: its lease is found by the sweeper.
            for origin in entered:
                self.gate.leave(origin)
            raise

    def _claim_and_enter(self, delivery_id: int, entered: list[str]) -> _Claimed | None:
        """`entered` gets the origin once it is inside the gate, committed or not."""
        now = self.clock()
        with self.pool.transaction("delivery.claim") as conn:
            delivery = deliveries.lock_due(conn, delivery_id, now)
            if delivery is None:
                return None
            merchant = self.merchants().find(delivery.merchant)
            if merchant is None:
                until = now + MERCHANT_WAIT
                deliveries.postpone(conn, delivery.id, until, waits_for_endpoint=False)
                return None
            failures = self._count_lost_try(conn, delivery, merchant, now)
            if failures is None:
                return None
            failing = endpoints.find(conn, delivery.merchant, delivery.origin)
            if not self._may_try(conn, delivery, failing, now, entered):
                return None
            claim = deliveries.start_attempt(
                conn, delivery, failures=failures, lease_until=now + self.lease, now=now
            )
            return _Claimed(
                delivery,
                merchant,
                claim,
                number=delivery.attempts_made + 1,
                failures=failures,
                waited_s=_waited_s(delivery, now) if failing is None else None,
            )

    def _count_lost_try(
        self, conn: Connection, delivery: Delivery, merchant: Merchant, now: datetime
    ) -> int | None:
        """Failures so far, with a try that a dead worker left open; None when that was the last."""
        if delivery.lease_until is None or not deliveries.save_unknown(conn, delivery.id):
            return delivery.failures
        metrics.webhook_failures_total.labels("worker_died").inc()
        failures = delivery.failures + 1
        lost = Attempt(AttemptOutcome.UNKNOWN)
        following = after_attempt(lost, failures, merchant.retry_schedule, now)
        if following.state is DeliveryState.PENDING:
            return failures
        metrics.webhook_exhausted_total.inc()
        deliveries.finish_claim(
            conn, delivery.id, delivery.claim, following, failures=failures, now=now
        )
        return None

    def _may_try(
        self,
        conn: Connection,
        delivery: Delivery,
        failing: FailingEndpoint | None,
        now: datetime,
        entered: list[str],
    ) -> bool:
        """Whether the endpoint is not parked; one try at a time feels whether it is back."""
        merchant, origin = delivery.merchant, delivery.origin
        parked = failing.parked_until if failing is not None else None
        if parked is not None and parked > now:
            deliveries.postpone(conn, delivery.id, parked, waits_for_endpoint=True)
            return False
        if not self.gate.enter(origin, delivery.id, failing=failing is not None):
            return False
        entered.append(origin)
        if parked is not None:
            endpoints.take_probe(conn, merchant, origin, until=now + self.lease, now=now)
        return True

    def _finish(self, claimed: _Claimed, attempt: Attempt) -> list[int]:
        now = self.clock()
        delivery, schedule = claimed.delivery, claimed.merchant.retry_schedule
        failures = claimed.failures + (0 if attempt.success else 1)
        following = after_attempt(attempt, failures, schedule, now)
        with self.pool.transaction("delivery.finish") as conn:
            if not deliveries.finish_claim(
                conn, delivery.id, claimed.claim, following, failures=failures, now=now
            ):
                metrics.stale_completions_total.labels("delivery").inc()
                LOGGER.warning("webhook ended after its lease had passed", delivery=delivery.id)
                return []
            deliveries.save_attempt(conn, delivery.id, claimed.number, attempt)
            woken = self._judge_endpoint(conn, delivery, attempt, now)
            if following.state is not DeliveryState.PENDING:
                successor = deliveries.find_next(conn, delivery.transaction_id)
                woken += [successor] if successor is not None else []
        self._observe(claimed, attempt, following, now)
        return woken

    def _judge_endpoint(
        self, conn: Connection, delivery: Delivery, attempt: Attempt, now: datetime
    ) -> list[int]:
        """Park what keeps failing; when it answers again, wake what waited for it."""
        merchant, origin = delivery.merchant, delivery.origin
        if attempt.success:
            if not endpoints.forgive(conn, merchant, origin):
                return []
            return deliveries.wake_waiting(conn, merchant, origin, now, WAKE_LIMIT)
        if attempt.response_status_code == 410:
            # It speaks of this delivery, not of the endpoint.
            return []
        in_row = endpoints.count_failure(conn, merchant, origin, now)
        until = park_until(in_row, now)
        if until is not None:
            endpoints.park(conn, merchant, origin, until)
            if in_row == PARK_AFTER_FAILURES:
                LOGGER.warning("endpoint parked", merchant=merchant, failures=in_row)
        return []

    def _observe(
        self, claimed: _Claimed, attempt: Attempt, following: NextTry, now: datetime
    ) -> None:
        which = "first" if claimed.number == 1 else "retry"
        metrics.webhook_attempts_total.labels(attempt.outcome.value, which).inc()
        if attempt.success:
            lag_s = (now - claimed.delivery.created_at).total_seconds()
            metrics.webhook_delivery_lag_seconds.labels(which).observe(max(lag_s, 0.0))
        else:
            metrics.webhook_failures_total.labels(attempt.reason or "other").inc()
        if following.state is DeliveryState.EXHAUSTED:
            metrics.webhook_exhausted_total.inc()
        LOGGER.info(
            "webhook tried",
            delivery=claimed.delivery.id,
            attempt=claimed.number,
            outcome=attempt.outcome.value,
            status=attempt.response_status_code,
            reason=attempt.reason,
            state=following.state.value,
        )


def _waited_s(delivery: Delivery, now: datetime) -> float | None:
    """How long a delivery waited for its first try; None if it had that, or was held back."""
    if delivery.attempts_made > 0 or delivery.held_back:
        return None
    return max((now - delivery.created_at).total_seconds(), 0.0)

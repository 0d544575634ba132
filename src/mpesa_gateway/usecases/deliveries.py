"""One try of one webhook: claim and attempt row committed, POST, result committed.

Nearly always each of the two commits is one statement. What needs a second look (a dead worker's
try, an endpoint that fails) is a transaction of several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mpesa_gateway.clients.caller import on_behalf_of
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
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store import deliveries, endpoints
from mpesa_gateway.store.deliveries import Delivery, Finished, Started
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.telemetry import metrics, tracing
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases.acknowledged import KnownWebhook
from mpesa_gateway.usecases.endpoint_limiter import Endpoint, EndpointLimiter, Slot

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
    started: Started
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
    limiter: EndpointLimiter
    remember: Callable[[KnownWebhook], None]

    def attempt(self, delivery_id: int) -> list[Work]:
        """Try a delivery, if it is due. What to do next is returned. Safe to call at any time."""
        slot = Slot(self.limiter, delivery_id)
        woken: list[int] = []
        try:
            claimed = self._claim(slot)
            if claimed is not None:
                if claimed.waited_s is not None:
                    metrics.webhook_first_attempt_lag_seconds.observe(claimed.waited_s)
                woken = self._try(claimed)
        finally:
            # Even when the reply to the claim's commit was lost: the sweeper finds the lease.
            handed_back = slot.release()
        return [Work(WorkKind.DELIVERY, it) for it in dict.fromkeys([*handed_back, *woken])]

    def is_deferred(self, work: Work) -> bool:
        """Return whether the limiter re-queues that delivery, so that the sweeper can skip it."""
        return work.kind is WorkKind.DELIVERY and self.limiter.is_deferred(work.id)

    def is_reserved(self, work: Work) -> bool:
        """Return whether a slot of this process is reserved for it: it must be attempted here."""
        return work.kind is WorkKind.DELIVERY and self.limiter.is_reserved(work.id)

    def next_deferred(self) -> list[Work]:
        """Return deliveries that found no slot and have one reserved now."""
        return [Work(WorkKind.DELIVERY, it) for it in self.limiter.next_deferred()]

    def _try(self, claimed: _Claimed) -> list[int]:
        delivery, now = claimed.delivery, self.clock()
        with tracing.span(
            "webhook attempt",
            parent=delivery.traceparent,
            kind="client",
            delivery=delivery.id,
            attempt=claimed.started.number,
        ) as span:
            tracing.follow(delivery.public_id, delivery.traceparent)
            headers = webhook_headers(
                delivery.webhook_id, claimed.merchant.webhook_secrets, delivery.body, now
            )
            # Not signed: it names this try, and the bytes stay equal in all of them.
            headers |= {"traceparent": span.traceparent} if span.traceparent else {}
            with on_behalf_of(delivery.merchant):
                attempt = self.webhooks.post(delivery.url, delivery.body, headers, now)
            if attempt.success:
                # Before it is saved: a database that loses it must not make it unknown.
                self.remember(KnownWebhook.of(delivery, now))
            span.set(
                outcome=attempt.outcome.value,
                status=attempt.response_status_code,
                reason=attempt.reason,
            )
            return self._finish(claimed, attempt)

    def _claim(self, slot: Slot) -> _Claimed | None:
        """Claim the slot's delivery, if it is due and its endpoint has room."""
        now = self.clock()
        with self.pool.connection("delivery.find") as conn:
            delivery = deliveries.find_due(conn, slot.delivery_id, now)
        if delivery is None:
            return None
        merchant = self.merchants().find(delivery.merchant)
        if merchant is None or delivery.lease_until is not None or delivery.parked_until:
            return self._claim_with_care(slot)
        if not _acquire(slot, delivery):
            return None
        with self.pool.connection("delivery.claim") as conn:
            started = deliveries.start_found(conn, delivery, lease_until=now + self.lease, now=now)
        if started is None:
            return None
        return _Claimed(delivery, merchant, started, _waited_s(delivery, now))

    def _claim_with_care(self, slot: Slot) -> _Claimed | None:
        """The same where its merchant is away, a try of it was lost, or its endpoint is parked."""
        now = self.clock()
        with self.pool.transaction("delivery.claim_with_care") as conn:
            delivery = deliveries.lock_due(conn, slot.delivery_id, now)
            if delivery is None:
                return None
            merchant = self.merchants().find(delivery.merchant)
            if merchant is None:
                until = now + MERCHANT_WAIT
                deliveries.postpone(conn, delivery.id, until, waits_for_endpoint=False)
                return None
            failures = self._count_lost_try(conn, delivery, merchant, now)
            if failures is None or not self._may_try(conn, delivery, now, slot):
                return None
            claim = deliveries.start_attempt(
                conn, delivery, failures=failures, lease_until=now + self.lease, now=now
            )
            started = Started(claim, delivery.attempts_made + 1, failures)
            return _Claimed(delivery, merchant, started, _waited_s(delivery, now))

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

    def _may_try(self, conn: Connection, delivery: Delivery, now: datetime, slot: Slot) -> bool:
        """Whether the endpoint is not parked; one try at a time feels whether it is back."""
        merchant, origin, parked = delivery.merchant, delivery.origin, delivery.parked_until
        if parked is not None and parked > now:
            deliveries.postpone(conn, delivery.id, parked, waits_for_endpoint=True)
            return False
        if not _acquire(slot, delivery):
            return False
        if parked is not None:
            endpoints.take_probe(conn, merchant, origin, until=now + self.lease, now=now)
        return True

    def _finish(self, claimed: _Claimed, attempt: Attempt) -> list[int]:
        now = self.clock()
        delivery, schedule = claimed.delivery, claimed.merchant.retry_schedule
        failures = claimed.started.failures + (0 if attempt.success else 1)
        following = after_attempt(attempt, failures, schedule, now)

        def finish(conn: Connection) -> Finished | None:
            return deliveries.finish_attempt(
                conn,
                delivery.id,
                claimed.started,
                attempt,
                following,
                failures=failures,
                now=now,
            )

        woken: list[int] = []
        if attempt.success and not delivery.endpoint_fails:
            with self.pool.connection("delivery.finish") as conn:
                finished = finish(conn)
        else:
            with self.pool.transaction("delivery.finish_and_judge") as conn:
                finished = finish(conn)
                if finished is not None:
                    woken = self._judge_endpoint(conn, delivery, attempt, now)
        if finished is None:
            metrics.stale_completions_total.labels("delivery").inc()
            LOGGER.warning("webhook ended after its lease had passed", delivery=delivery.id)
            return []
        if following.state is not DeliveryState.PENDING and finished.successor is not None:
            woken.append(finished.successor)
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
        which = "first" if claimed.started.number == 1 else "retry"
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
            attempt=claimed.started.number,
            outcome=attempt.outcome.value,
            status=attempt.response_status_code,
            reason=attempt.reason,
            state=following.state.value,
        )


def _acquire(slot: Slot, delivery: Delivery) -> bool:
    endpoint = Endpoint(delivery.merchant, delivery.origin)
    return slot.try_acquire(endpoint, failing=delivery.endpoint_fails)


def _waited_s(delivery: Delivery, now: datetime) -> float | None:
    """How long a delivery waited for its first try; None if it had that, or was held back."""
    if delivery.attempts_made > 0 or delivery.held_back or delivery.endpoint_fails:
        return None
    return max((now - delivery.created_at).total_seconds(), 0.0)

"""A delivery: one webhook to one endpoint, its frozen bytes, and when to try again."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from mpesa_gateway.domain.amount import amount_text
from mpesa_gateway.domain.ownership import public_name
from mpesa_gateway.domain.transaction import Status, Transaction, metadata_of, result_of

# Longer than any endpoint may reasonably ask for.
MAX_RETRY_AFTER = timedelta(hours=24)
# Of what an endpoint answered, as UTF-8; an error page says within it what is wrong.
MAX_RESPONSE_BODY_BYTES = 2048
# An endpoint is parked after this many failures in a row: more than one delivery's whole schedule.
PARK_AFTER_FAILURES = 10
PARK_FIRST = timedelta(seconds=30)
PARK_LONGEST = timedelta(minutes=15)


class WebhookType(StrEnum):
    """What a webhook tells."""

    COMPLETED = "transaction.completed"
    FAILED = "transaction.failed"
    UPDATED = "transaction.updated"
    CONFLICT = "transaction.conflict"


class DeliveryState(StrEnum):
    """PENDING until an endpoint took it, the schedule ended, or the endpoint said 410."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    EXHAUSTED = "EXHAUSTED"
    GONE = "GONE"


class AttemptOutcome(StrEnum):
    """How one HTTP try ended. STARTED is written before the request leaves."""

    STARTED = "started"
    DELIVERED = "delivered"
    FAILED = "failed"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Attempt:
    """The result of one try. `reason` is a metric's label, `error_message` a sentence."""

    outcome: AttemptOutcome
    response_status_code: int | None = None
    response_time_ms: int | None = None
    reason: str | None = None
    error_message: str | None = None
    retry_after: timedelta | None = None
    # The beginning of what the endpoint answered, for its owner to read.
    response_body: str | None = None

    @property
    def success(self) -> bool:
        """Whether the endpoint took it (2xx)."""
        return self.outcome is AttemptOutcome.DELIVERED


@dataclass(frozen=True)
class NextTry:
    """What becomes of a delivery after an attempt."""

    state: DeliveryState
    next_attempt_at: datetime | None = None


def response_text(body: bytes) -> str | None:
    """The beginning of an answer as text that can be stored, None when it was empty."""
    text = body[:MAX_RESPONSE_BODY_BYTES].decode("utf-8", "replace").replace("\x00", "\ufffd")
    return text.encode()[:MAX_RESPONSE_BODY_BYTES].decode("utf-8", "ignore") or None


def after_attempt(
    attempt: Attempt, failures: int, schedule: tuple[timedelta, ...], now: datetime
) -> NextTry:
    """The delivery's state after an attempt.

    `failures` counts the failed tries of this round, this one included. The first try is followed
    by one more for each wait of the schedule. A Retry-After may lengthen a wait, never shorten it.
    """
    if attempt.success:
        return NextTry(DeliveryState.DELIVERED)
    if attempt.response_status_code == 410:
        return NextTry(DeliveryState.GONE)
    if failures > len(schedule):
        return NextTry(DeliveryState.EXHAUSTED)
    if attempt.outcome is AttemptOutcome.UNKNOWN:
        # The worker died in the middle: the endpoint may not have seen it, so try at once.
        return NextTry(DeliveryState.PENDING, now)
    wait = schedule[failures - 1]
    asked = min(attempt.retry_after or timedelta(0), MAX_RETRY_AFTER)
    return NextTry(DeliveryState.PENDING, now + max(wait, asked))


def park_until(failures_in_row: int, now: datetime) -> datetime | None:
    """Until when an endpoint that keeps failing is left alone, None when it is not.

    The pause doubles with each further failure: 30 s, 1 m, 2 m … 15 m.
    """
    beyond = failures_in_row - PARK_AFTER_FAILURES
    if beyond < 0:
        return None
    doublings = min(beyond, 10)
    return now + min(PARK_FIRST * (1 << doublings), PARK_LONGEST)


def webhook_body(
    kind: WebhookType,
    transaction: Transaction,
    now: datetime,
    *,
    conflict: dict[str, Any] | None = None,
) -> bytes:
    """The bytes that every attempt of a delivery sends."""
    body: dict[str, Any] = {
        "type": kind,
        "transaction_id": str(transaction.id),
        "merchant": public_name(transaction.merchant),
        "status": transaction.status,
        "amount": amount_text(transaction.amount),
        "phone": transaction.phone,
        "account_reference": transaction.account_reference,
        "order_id": transaction.order_id,
        "custom_data": transaction.custom_data or {},
        "metadata": metadata_of(transaction),
        "result": result_of(transaction),
        "timestamp": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    if transaction.status is Status.FAILED:
        body["failure"] = failure_of(transaction)
    if conflict is not None:
        body["conflict"] = conflict
        body["metadata"] = conflict["metadata"]
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def webhook_id(kind: WebhookType, transaction: uuid.UUID, *about: str) -> str:
    """Return the `webhook-id` of what one webhook tells, the same whenever it is told.

    Derived, so that a receiver recognises a webhook that is written anew after a restore of the
    database. `about` tells apart webhooks of one kind about one payment: a conflict's kind and
    receipt.
    """
    subject = json.dumps([kind.value, str(transaction), *about]).encode()
    return f"msg_{hashlib.sha256(subject).hexdigest()[:32]}"


def failure_of(transaction: Transaction) -> dict[str, str | None]:
    """`failure` in webhooks and answers: Safaricom's code, our stable word."""
    return {"code": transaction.result_code, "reason": transaction.failure_reason}

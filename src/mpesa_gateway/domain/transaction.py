"""A transaction: what was asked for, how far it is, and the only two ways it can end.

PENDING → COMPLETED, PENDING → FAILED, nothing else, ever. `finish` is the first of three walls; the
guarded UPDATE and the database's constraints are the others.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from mpesa_gateway.domain.amount import amount_text
from mpesa_gateway.domain.results import (
    PUSH_REASONS,
    RESOLVED_FAILED,
    ResultMeaning,
    meaning_of,
)
from mpesa_gateway.errors import InvalidInputError, TransitionError

# A prompt lives about 60 s (community claim); a second push inside its life kills the first one.
PROMPT_LIFE = timedelta(seconds=90)
# After this, a push whose answer never came and that no callback named needs a person.
UNKNOWN_PUSH_PATIENCE = timedelta(minutes=5)
# Asking goes on for a day; what is open then is escalated, not invented.
QUERY_WINDOW = timedelta(hours=24)

DEFAULT_ACCOUNT_REFERENCE = "Payment"
DEFAULT_DESCRIPTION = "Payment"
ACCOUNT_REFERENCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 -]{0,11}$"
DESCRIPTION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 -]{0,12}$"


class Status(StrEnum):
    """Where a transaction is."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


FINAL = (Status.COMPLETED, Status.FAILED)


class PushState(StrEnum):
    """How far the push came. INTENT: certainly not sent. SENDING: it may have left."""

    INTENT = "INTENT"
    SENDING = "SENDING"
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    NOT_SENT = "NOT_SENT"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class PaymentRequest:
    """What a caller of POST /initiate asks for, every field checked."""

    amount: Decimal
    phone: str
    idempotency_key: uuid.UUID
    webhook_url: str | None = None
    account_reference: str = DEFAULT_ACCOUNT_REFERENCE
    description: str = DEFAULT_DESCRIPTION
    order_id: str | None = None
    custom_data: dict[str, str] | None = None

    def sha256(self) -> bytes:
        """Fingerprint of the meaning, so that `10` and `"10.00"` are the same body."""
        meaning: list[object] = [
            amount_text(self.amount),
            self.phone,
            self.webhook_url,
            self.account_reference,
            self.description,
        ]
        # Only where there is one: payments of earlier releases keep their fingerprints.
        if self.order_id is not None or self.custom_data:
            meaning += [self.order_id, sorted((self.custom_data or {}).items())]
        return hashlib.sha256(json.dumps(meaning).encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """One row of `transactions`, as the rules need it. Times are aware."""

    row: int
    id: uuid.UUID
    merchant: str
    idempotency_key: uuid.UUID
    request_sha256: bytes
    status: Status
    amount: Decimal
    phone: str
    short_code: str
    webhook_url: str
    account_reference: str
    description: str
    push_state: PushState
    push_lease_until: datetime | None
    prompt_until: datetime
    callback_secret_sha256: bytes
    checkout_request_id: str | None
    merchant_request_id: str | None
    response_status: int | None
    response_body: str | None
    next_query_at: datetime | None
    queries_made: int
    provisional_code: str | None
    receipt: str | None
    metadata: dict[str, Any] | None
    result_code: str | None
    result_desc: str | None
    failure_reason: str | None
    settled_by: str | None
    attention: str | None
    in_doubt: bool
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    # W3C's, of the request that made it; None without traces.
    traceparent: str | None = None
    order_id: str | None = None
    custom_data: dict[str, str] | None = None


@dataclass(frozen=True)
class Ending:
    """How a transaction ends: the words of whoever said it."""

    status: Status
    settled_by: str
    result_code: str | None = None
    result_desc: str | None = None
    failure_reason: str | None = None
    receipt: str | None = None
    metadata: dict[str, Any] | None = None


def finish(transaction: Transaction, ending: Ending, now: datetime) -> Transaction:
    """The transaction in its final state. Raises TransitionError if it is final already."""
    if transaction.status in FINAL or ending.status not in FINAL:
        raise TransitionError(f"{transaction.id}: {transaction.status} -> {ending.status}")
    return replace(
        transaction,
        status=ending.status,
        settled_by=ending.settled_by,
        result_code=ending.result_code,
        result_desc=ending.result_desc,
        failure_reason=ending.failure_reason,
        receipt=ending.receipt,
        metadata=ending.metadata,
        attention=None,
        next_query_at=None,
        updated_at=now,
        finished_at=now,
    )


def result_meaning(transaction: Transaction) -> ResultMeaning | None:
    """What the end of a final transaction means, None while it is pending."""
    if transaction.status not in FINAL:
        return None
    pushed = PUSH_REASONS.get(transaction.failure_reason or "")
    if pushed is not None:
        return pushed
    if transaction.failure_reason == RESOLVED_FAILED.reason:
        return RESOLVED_FAILED
    return meaning_of(transaction.result_code or "0", transaction.result_desc)


def result_of(transaction: Transaction) -> dict[str, Any] | None:
    """`result` in views and webhooks: what the end means, and what to tell the customer."""
    meaning = result_meaning(transaction)
    if meaning is None:
        return None
    return {
        "code": transaction.result_code or meaning.code or None,
        "reason": meaning.reason,
        "cause": meaning.cause,
        "message": {"en": meaning.en, "sw": meaning.sw},
        "customer_may_retry": meaning.customer_may_retry,
        "recognised": meaning.recognised,
    }


def metadata_of(transaction: Transaction) -> dict[str, Any] | None:
    """`metadata` in views and webhooks. A phone is text; earlier releases stored a number."""
    metadata = transaction.metadata
    if metadata is None or not isinstance(metadata.get("PhoneNumber"), int):
        return metadata
    return {**metadata, "PhoneNumber": str(metadata["PhoneNumber"])}


@dataclass(frozen=True)
class NextStep:
    """What happens next to a pending transaction; `at` is None when it waits for a person."""

    action: str
    at: datetime | None


def next_step(transaction: Transaction) -> NextStep | None:
    """What the gateway does next, None once the transaction is final."""
    if transaction.status in FINAL:
        return None
    if transaction.attention is not None:
        return NextStep("person", None)
    if transaction.push_state in (PushState.INTENT, PushState.SENDING):
        return NextStep("push_answer", transaction.push_lease_until)
    if transaction.next_query_at is not None:
        return NextStep("query", transaction.next_query_at)
    return NextStep("wait_for_callback", transaction.created_at + UNKNOWN_PUSH_PATIENCE)


def next_query_at(
    queries_made: int, schedule: tuple[timedelta, ...], created_at: datetime, now: datetime
) -> datetime | None:
    """When to ask Safaricom again, None once the window has passed.

    `queries_made` counts the queries so far; the last wait of the schedule repeats.
    """
    wait = schedule[min(queries_made, len(schedule) - 1)]
    at = now + wait
    return at if at - created_at <= QUERY_WINDOW else None


def parse_reference(value: object, field: str, pattern: str, limit: int) -> str:
    """A text that the payer's phone shows. Raises InvalidInputError.

    Letters, digits, space and hyphen: others have broken requests (public issues).
    """
    if isinstance(value, str) and re.fullmatch(pattern.rstrip("$"), value, re.ASCII):
        return value
    raise InvalidInputError.of(
        field,
        f"must be at most {limit} letters, digits, spaces or hyphens, not starting with one"
        " of the last two",
    )

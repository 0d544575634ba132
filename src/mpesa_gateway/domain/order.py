"""A merchant's own order: its id, by which it is paid once, and what the merchant wants echoed."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import datetime

from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.errors import InvalidInputError, OrderOpenError, OrderPaidError

MAX_ORDER_ID = 64
# A merchant's own notes on a payment; they travel in every view and webhook.
MAX_CUSTOM_KEYS = 16
MAX_CUSTOM_KEY = 64
MAX_CUSTOM_VALUE = 256
# How long a caller should wait for an order whose attempt has no prompt any more: its end is a
# query or a person away.
OPEN_ORDER_RETRY_S = 60


@dataclass(frozen=True)
class Attempt:
    """The payment that keeps an order shut. FAILED: money may have been taken all the same."""

    id: uuid.UUID
    status: Status
    receipt: str | None
    prompt_until: datetime | None


def parse_order_id(value: object) -> str:
    """Return the id as it came: it is compared exactly. Raises InvalidInputError."""
    if isinstance(value, str) and 1 <= len(value) <= MAX_ORDER_ID and _can_be_stored(value):
        return value
    raise InvalidInputError.of(
        "order_id", f"must be a text of 1 to {MAX_ORDER_ID} characters, without NUL"
    )


def parse_custom_data(value: object) -> dict[str, str]:
    """Return the merchant's own texts. Raises InvalidInputError."""
    if not isinstance(value, dict) or len(value) > MAX_CUSTOM_KEYS:
        raise _bad_custom_data(f"must be an object of at most {MAX_CUSTOM_KEYS} texts")
    for key, text in value.items():
        if not 1 <= len(key) <= MAX_CUSTOM_KEY or not _can_be_stored(key):
            raise _bad_custom_data(f"names must have 1 to {MAX_CUSTOM_KEY} characters, without NUL")
        if not isinstance(text, str) or len(text) > MAX_CUSTOM_VALUE or not _can_be_stored(text):
            raise _bad_custom_data(
                f"values must be texts of at most {MAX_CUSTOM_VALUE} characters, without NUL"
            )
    return value


def refuse_second(attempt: Attempt | None, now: datetime) -> None:
    """Let nobody pay an order twice. Raises OrderPaidError, OrderOpenError."""
    if attempt is None:
        return
    if attempt.status is Status.COMPLETED:
        raise OrderPaidError(
            "the order is paid", transaction_id=attempt.id, receipt=attempt.receipt
        )
    until = attempt.prompt_until
    wait_s = math.ceil((until - now).total_seconds()) if until is not None else 0
    if attempt.status is Status.FAILED:
        raise OrderOpenError(
            "an attempt of the order failed, but money may have been taken: a person looks at it",
            transaction_id=attempt.id,
            retry_after_s=OPEN_ORDER_RETRY_S,
        )
    raise OrderOpenError(
        "an attempt of the order may still be paid",
        transaction_id=attempt.id,
        retry_after_s=wait_s if wait_s > 0 else OPEN_ORDER_RETRY_S,
    )


def _can_be_stored(text: str) -> bool:
    """Whether Postgres takes it as text: it has no NUL, and every character has UTF-8."""
    return "\0" not in text and not any("\ud800" <= it <= "\udfff" for it in text)


def _bad_custom_data(message: str) -> InvalidInputError:
    return InvalidInputError.of("custom_data", message)

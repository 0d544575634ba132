"""Reads the bodies of push and query as strictly as Daraja does."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from daraja_simulator import replies
from daraja_simulator.replies import RefusedError

PAY_BILL = "CustomerPayBillOnline"
BUY_GOODS = "CustomerBuyGoodsOnline"

MAX_AMOUNT = 250_000  # Shillings in one transaction [O].
MAX_REFERENCE_CHARACTERS = 12
MAX_DESCRIPTION_CHARACTERS = 13
MAX_URL_CHARACTERS = 1_024
MAX_ID_CHARACTERS = 128
MAX_PASSWORD_CHARACTERS = 512

_SHORT_CODE = re.compile(r"[0-9]{5,7}\Z", re.ASCII)
_PHONE = re.compile(r"254[0-9]{9}\Z", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{14}\Z", re.ASCII)
_AMOUNT = re.compile(r"[0-9]{1,9}\Z", re.ASCII)
_NO_SPACES = re.compile(r"[!-~]+\Z", re.ASCII)


@dataclass(frozen=True)
class PushRequest:
    """A push that is right in itself; numbers that name something are text."""

    short_code: str
    amount: int
    phone: str
    callback_url: str
    account_reference: str


@dataclass(frozen=True)
class QueryRequest:
    """A query that is right in itself."""

    short_code: str
    checkout_request_id: str


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises RefusedError."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RefusedError(replies.invalid_payload()) from error
    if not isinstance(body, dict):
        raise RefusedError(replies.invalid_payload())
    return body


def parse_push(body: Mapping[str, Any], passkeys: Mapping[str, str] | None) -> PushRequest:
    """A push, its fields checked in the order of the documented example. Raises RefusedError."""
    short_code = _match(body, "BusinessShortCode", _SHORT_CODE)
    password = _text(body, "Password", MAX_PASSWORD_CHARACTERS)
    timestamp = _timestamp(body)
    transaction_type = body.get("TransactionType")
    if transaction_type not in (PAY_BILL, BUY_GOODS):
        raise RefusedError(replies.invalid_field("TransactionType"))
    amount = _amount(body)
    _match(body, "PartyA", _PHONE)
    receiver = _match(body, "PartyB", _SHORT_CODE)
    if transaction_type == PAY_BILL and receiver != short_code:
        raise RefusedError(replies.invalid_field("PartyB"))
    push = PushRequest(
        short_code=short_code,
        amount=amount,
        phone=_match(body, "PhoneNumber", _PHONE),
        callback_url=_callback_url(body),
        account_reference=_text(body, "AccountReference", MAX_REFERENCE_CHARACTERS),
    )
    if body.get("TransactionDesc") not in (None, ""):
        _text(body, "TransactionDesc", MAX_DESCRIPTION_CHARACTERS)
    _check_password(short_code, timestamp, password, passkeys)
    return push


def parse_query(body: Mapping[str, Any], passkeys: Mapping[str, str] | None) -> QueryRequest:
    """A query. Raises RefusedError."""
    short_code = _match(body, "BusinessShortCode", _SHORT_CODE)
    password = _text(body, "Password", MAX_PASSWORD_CHARACTERS)
    timestamp = _timestamp(body)
    checkout_request_id = _text(body, "CheckoutRequestID", MAX_ID_CHARACTERS)
    _check_password(short_code, timestamp, password, passkeys)
    return QueryRequest(short_code, checkout_request_id)


def _match(body: Mapping[str, Any], field: str, pattern: re.Pattern[str]) -> str:
    """Digits, which Daraja takes as a JSON number too [O]."""
    value = body.get(field)
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not pattern.match(text):
        raise RefusedError(replies.invalid_field(field))
    return text


def _text(body: Mapping[str, Any], field: str, max_characters: int) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value.strip() or len(value) > max_characters:
        raise RefusedError(replies.invalid_field(field))
    return value


def _amount(body: Mapping[str, Any]) -> int:
    """Whole shillings from 1 to 250,000, as a number or a text [O][I]."""
    amount = int(_match(body, "Amount", _AMOUNT))
    if not 1 <= amount <= MAX_AMOUNT:
        raise RefusedError(replies.invalid_field("Amount"))
    return amount


def _timestamp(body: Mapping[str, Any]) -> str:
    """`YYYYMMDDHHMMSS`, and such a moment exists."""
    text = _match(body, "Timestamp", _TIMESTAMP)
    try:
        datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007  only its form is looked at
    except ValueError as error:
        raise RefusedError(replies.invalid_field("Timestamp")) from error
    return text


def _callback_url(body: Mapping[str, Any]) -> str:
    """Http or https, no spaces [I], and no upper-case host (refused once in the sandbox) [M]."""
    url = body.get("CallBackURL")
    if not isinstance(url, str) or len(url) > MAX_URL_CHARACTERS or not _NO_SPACES.match(url):
        raise RefusedError(replies.invalid_field("CallBackURL"))
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # The port is no number below 65536, or a bracket is open.
        right = False
    if not right or parts.netloc != parts.netloc.lower():
        raise RefusedError(replies.invalid_field("CallBackURL"))
    return url


def _check_password(
    short_code: str, timestamp: str, password: str, passkeys: Mapping[str, str] | None
) -> None:
    """`passkeys` maps short codes to passkeys; None accepts any password."""
    if passkeys is None:
        return
    passkey = passkeys.get(short_code)
    if passkey is None:
        raise RefusedError(replies.merchant_unknown())
    expected = base64.b64encode(f"{short_code}{passkey}{timestamp}".encode()).decode()
    if password != expected:
        raise RefusedError(replies.wrong_password())

"""Identifiers and times in the forms that Safaricom gives them."""

from __future__ import annotations

import itertools
import secrets
import string
import time
from collections.abc import Container
from datetime import UTC, datetime, timedelta, timezone

# M-Pesa runs on East Africa Time, which has no daylight saving.
EAT = timezone(timedelta(hours=3), "EAT")

TOKEN_CHARACTERS = 28
RECEIPT_CHARACTERS = 10

_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
_BASE_36 = string.digits + string.ascii_uppercase


def stamp(at: datetime) -> str:
    """`YYYYMMDDHHMMSS` in East Africa Time."""
    return at.astimezone(EAT).strftime("%Y%m%d%H%M%S")


def now() -> datetime:
    """The time of this moment."""
    return datetime.now(UTC)


def new_token() -> str:
    """An OAuth access token: 28 characters in the sandbox [M]."""
    return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(TOKEN_CHARACTERS))


def new_merchant_request_id() -> str:
    """The newer form, `2654-4b64-97ff-b827b542881d3130` [O]."""
    text = secrets.token_hex(14)
    return f"{text[:4]}-{text[4:8]}-{text[8:12]}-{text[12:]}"


def new_checkout_request_id(at: datetime, phone: str, taken: Container[str]) -> str:
    """`ws_CO_`, `DDMMYYYYHHMMSS`, some digits, the phone's last nine: none of those `taken`."""
    moment = at.astimezone(EAT).strftime("%d%m%Y%H%M%S")
    for digits in itertools.count(secrets.randbelow(1000)):  # pragma: no branch
        candidate = f"ws_CO_{moment}{digits:03d}{phone[-9:]}"
        if candidate not in taken:
            break
    return candidate


class Receipts:
    """Receipt numbers: ten upper-case letters and digits, no two of them equal.

    They count microseconds, so that a simulator started again gives no number twice.
    """

    def __init__(self) -> None:
        self._last = 0

    def take(self) -> str:
        """The next receipt number."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return _base_36(self._last)


def _base_36(number: int) -> str:
    digits = []
    for _ in range(RECEIPT_CHARACTERS):
        number, digit = divmod(number, 36)
        digits.append(_BASE_36[digit])
    return "".join(reversed(digits))


def mask_phone(phone: str) -> str:
    """For logs: the first three and the last three digits."""
    return f"{phone[:3]}******{phone[-3:]}"

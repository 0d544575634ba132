"""Phone numbers of payers: `254` and nine digits, personal data."""

from __future__ import annotations

import re

from mpesa_gateway.errors import InvalidInputError

PHONE_PATTERN = r"^254[0-9]{9}$"
_PHONE = re.compile(r"254[0-9]{9}\Z", re.ASCII)


def parse_phone(value: object) -> str:
    """A number in the form that Daraja takes. Raises InvalidInputError."""
    if isinstance(value, str) and _PHONE.match(value):
        return value
    raise InvalidInputError.of("phone", "must be 254 followed by nine digits")


def mask_phone(phone: str) -> str:
    """For logs and tables: the first three and the last three digits."""
    return f"{phone[:3]}******{phone[-3:]}"

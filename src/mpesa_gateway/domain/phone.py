"""Phone numbers of payers: `254` and nine digits, personal data."""

from __future__ import annotations

import re

from mpesa_gateway.errors import InvalidInputError

PHONE_PATTERN = r"^254[0-9]{9}$"
_PHONE = re.compile(r"254[0-9]{9}\Z", re.ASCII)
# As people write them, and what makes the right form of it. The number itself is not repeated.
_OTHER_FORMS = (
    (re.compile(r"0[17][0-9]{8}\Z", re.ASCII), "write 254 in place of the leading 0"),
    (re.compile(r"\+254[0-9]{9}\Z", re.ASCII), "leave out the +"),
    (re.compile(r"[17][0-9]{8}\Z", re.ASCII), "write 254 in front of it"),
)


def parse_phone(value: object) -> str:
    """A number in the form that Daraja takes. Raises InvalidInputError."""
    if isinstance(value, str) and _PHONE.match(value):
        return value
    raise InvalidInputError.of("phone", _meant(value))


def _meant(value: object) -> str:
    """What is wrong, and how to correct a number that is written in another usual form."""
    problem = "must be 254 followed by nine digits"
    for form, remedy in _OTHER_FORMS:
        if isinstance(value, str) and form.match(value):
            return f"{problem}: {remedy}"
    return problem


def mask_phone(phone: str) -> str:
    """For logs and tables: the first three and the last three digits."""
    return f"{phone[:3]}******{phone[-3:]}"

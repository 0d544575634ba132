"""Money: whole Kenyan shillings, always `Decimal`, never a float."""

from __future__ import annotations

import re
from decimal import Decimal

from mpesa_gateway.errors import InvalidInputError

# Per transaction, by Safaricom's own limit (Daraja 3.0 pages, December 2025).
MAX_AMOUNT = Decimal(250_000)
# Twenty digits is what NUMERIC(20,2) is for; a longer number is refused before it is computed with.
_WHOLE_TEXT = re.compile(r"[1-9][0-9]{0,17}(\.0{1,2})?\Z", re.ASCII)
_SENTENCE = 'must be whole shillings above 0, as an integer or as text such as "100"'


def parse_amount(value: object) -> Decimal:
    """Whole shillings above 0 from a JSON value (text, integer or `Decimal`).

    `"10.00"` is 10; any other fraction is refused, never rounded.
    Raises InvalidInputError.
    """
    if isinstance(value, str) and _WHOLE_TEXT.match(value):
        return Decimal(value).quantize(Decimal(1))
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if isinstance(value, Decimal) and _is_whole(value):
        return value.quantize(Decimal(1))
    raise InvalidInputError.of("amount", _SENTENCE)


def _is_whole(value: Decimal) -> bool:
    # adjusted() bounds the exponent first: 1e999999 must not be expanded.
    in_range = value.is_finite() and value > 0 and value.adjusted() < 18
    return in_range and value == value.to_integral_value()


def parse_reported_amount(value: object) -> Decimal | None:
    """The amount as Safaricom reports it (number or text), or None when it says none.

    Safaricom writes `1`, `1.00` and `"1.00"`. What is not a number counts as not said.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    text = str(value).strip()
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,4})?", text, re.ASCII):
        return None
    return Decimal(text)


def amount_text(amount: Decimal) -> str:
    """As our JSON shows it: `"100"`. Whole shillings only."""
    assert amount == amount.to_integral_value(), amount
    return str(int(amount))

"""Reading an STK callback: lenient about shape, strict about what it proves.

Field rules and the shapes that really occur (string codes, numbers as text, `Balance` without a
`Value`, missing metadata): Daraja 3.0 pages of December 2025 and bodies pasted in public issues.
What a relay wraps around them is `domain/envelope.py`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mpesa_gateway.domain.amount import parse_reported_amount
from mpesa_gateway.domain.envelope import UnreadableBodyError, is_same, member, parse_envelope
from mpesa_gateway.domain.push import MAX_ID_LENGTH, text_of

MAX_RECEIPT_LENGTH = 32
MAX_CODE_LENGTH = 32
# Zero as somebody may write it who does not write `0`: `00`, `0x0`, `-0.0`, `0e9`, `0,00`.
_ZERO = re.compile(r"[+-]?[.,]?0[0.,_xob ]*(?:e[+-]?[0-9]+)?", re.ASCII)
# What programs print where they have no receipt.
_PLACEHOLDERS = frozenset({"null", "none", "nil", "nan", "na", "undefined"})


class CallbackUnreadableError(ValueError):
    """The body is no STK callback; the message says why, without quoting it."""


@dataclass(frozen=True)
class StkCallback:
    """What Safaricom says happened. Values are as sent; None where nothing usable was said.

    `result_code` is empty where a body has a receipt but no usable code.
    """

    checkout_request_id: str
    merchant_request_id: str | None
    result_code: str
    result_desc: str
    amount: Decimal | None = None
    receipt: str | None = None
    transaction_date: str | None = None
    phone: str | None = None

    @property
    def paid(self) -> bool:
        """Whether Safaricom says in so many words that the money moved."""
        return self.result_code == "0"

    @property
    def claims_payment(self) -> bool:
        """Whether anything in it says that the money moved: the code, or a receipt.

        A body is judged whole: where the two disagree, it proves neither.
        """
        return self.receipt is not None or is_zero(self.result_code)

    def metadata(self) -> dict[str, int | str | None]:
        """As the merchant gets it: Safaricom's names, numbers where they are numbers.

        A phone is always text: Safaricom sends it as a number, a text, a mask or a hash.
        """
        return {
            "Amount": _amount_value(self.amount),
            "MpesaReceiptNumber": self.receipt,
            "TransactionDate": _number_or_text(self.transaction_date),
            "PhoneNumber": self.phone,
        }


def is_zero(code: str) -> bool:
    """Whether a code is zero, in whatever clothes: only `0` itself is Safaricom's word for paid."""
    plain = unicodedata.normalize("NFKC", code).strip().lower()
    digits = "".join(str(unicodedata.decimal(it)) if it.isdecimal() else it for it in plain)
    return digits == "false" or _ZERO.fullmatch(digits) is not None


def parse_stk_callback(body: bytes, content_encoding: str = "") -> StkCallback:
    """Read a callback's raw body. Raises CallbackUnreadableError."""
    try:
        return _read(parse_envelope(body, content_encoding))
    except UnreadableBodyError as error:
        raise CallbackUnreadableError(str(error)) from error
    except RecursionError as error:
        raise CallbackUnreadableError("nested too deeply") from error


def _read(parsed: dict[str, Any]) -> StkCallback:
    callback = _stk_callback(parsed)
    checkout_request_id = member(callback, "CheckoutRequestID")
    if not _is_identifier(checkout_request_id):
        raise CallbackUnreadableError("no CheckoutRequestID")
    merchant_request_id = member(callback, "MerchantRequestID")
    items = _items(member(callback, "CallbackMetadata"))
    read = StkCallback(
        checkout_request_id=str(checkout_request_id),
        merchant_request_id=str(merchant_request_id)
        if _is_identifier(merchant_request_id)
        else None,
        result_code=_result_code(member(callback, "ResultCode")),
        result_desc=text_of(member(callback, "ResultDesc")) or "",
        amount=parse_reported_amount(items.get("amount")),
        receipt=_receipt(items.get("mpesareceiptnumber")),
        transaction_date=_short_text(items.get("transactiondate")),
        phone=_short_text(items.get("phonenumber")),
    )
    if not read.result_code and read.receipt is None:
        raise CallbackUnreadableError("no ResultCode")
    return read


def _stk_callback(parsed: dict[str, Any]) -> dict[str, Any]:
    body = member(parsed, "Body")
    callback = member(body, "stkCallback") if isinstance(body, dict) else None
    if not isinstance(callback, dict):
        raise CallbackUnreadableError("no Body.stkCallback object")
    return callback


def _is_identifier(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable()


def _result_code(value: object) -> str:
    """Return a code as text: number, numeric text and `SFC_IC0003` have all been seen.

    Empty where there is none that can be used. `false` is zero in another language.
    """
    if value is False:
        return "false"
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return ""
    code = str(value).strip()
    if len(code) > MAX_CODE_LENGTH or not code.isprintable():
        return ""
    whole = re.fullmatch(r"([0-9]+)\.0+", code, re.ASCII)
    return whole[1] if whole else code


def _items(metadata: object) -> dict[str, Any]:
    """Metadata by name in lower case. A name may repeat; different values are no value."""
    rows = member(metadata, "Item") if isinstance(metadata, dict) else None
    # A lone item has been seen as an object instead of a list in Safaricom's other APIs.
    if isinstance(rows, dict):
        rows = [rows]
    items: dict[str, Any] = {}
    contradicted = set()
    for row in rows if isinstance(rows, list) else []:
        name = member(row, "Name") if isinstance(row, dict) else None
        value = member(row, "Value") if isinstance(row, dict) else None
        if not isinstance(name, str) or value is None:
            continue
        name = name.strip().lower()
        if name in items and not is_same(items[name], value):
            contradicted.add(name)
        items[name] = value
    return {name: value for name, value in items.items() if name not in contradicted}


def _receipt(value: object) -> str | None:
    """A receipt is 10 capitals and digits today; its length is not promised."""
    text = _short_text(value)
    if text is None or len(text) > MAX_RECEIPT_LENGTH or not (text.isascii() and text.isalnum()):
        return None
    return None if text.strip("0") == "" or text.lower() in _PLACEHOLDERS else text


def _short_text(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, Decimal) and value.adjusted() < 18 and value == value.to_integral_value():
        # A phone that a relay's language wrote as 2.54712345678E11.
        value = int(value)
    text = text_of(value)
    if text is None:
        return None
    text = text.strip()
    return text if 0 < len(text) <= 64 and text.isprintable() else None


def _amount_value(amount: Decimal | None) -> int | str | None:
    if amount is None:
        return None
    return int(amount) if amount == amount.to_integral_value() else str(amount)


def _number_or_text(text: str | None) -> int | str | None:
    """Digits as the number Safaricom documents; a date that is written otherwise stays text."""
    if text is not None and re.fullmatch("[1-9][0-9]{0,14}", text, re.ASCII):
        return int(text)
    return text

"""Reading an STK callback: lenient about shape, strict about what it proves.

Field rules and the shapes that really occur (string codes, numbers as text, `Balance` without a
`Value`, missing metadata): Daraja 3.0 pages of December 2025 and bodies pasted in public issues.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mpesa_gateway.domain.amount import parse_reported_amount
from mpesa_gateway.domain.push import MAX_ID_LENGTH, text_of

MAX_RECEIPT_LENGTH = 32
MAX_CODE_LENGTH = 32


class CallbackUnreadableError(ValueError):
    """The body is no STK callback; the message says why, without quoting it."""


@dataclass(frozen=True)
class StkCallback:
    """What Safaricom says happened. Values are as sent; None where nothing usable was said."""

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
        """Whether Safaricom says that the money moved."""
        return self.result_code == "0"

    def metadata(self) -> dict[str, int | str | None]:
        """As the merchant gets it: Safaricom's names; numbers where they are numbers."""
        return {
            "Amount": _amount_value(self.amount),
            "MpesaReceiptNumber": self.receipt,
            "TransactionDate": _number_or_text(self.transaction_date),
            "PhoneNumber": _number_or_text(self.phone),
        }


def parse_stk_callback(body: bytes) -> StkCallback:
    """Read a callback's raw body. Raises CallbackUnreadableError."""
    try:
        parsed = json.loads(
            body,
            parse_float=Decimal,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unambiguous,
        )
    except CallbackUnreadableError:
        raise
    except RecursionError as error:
        raise CallbackUnreadableError("nested too deeply") from error
    except (ValueError, ArithmeticError) as error:
        # A number whose exponent no Decimal holds is an ArithmeticError.
        raise CallbackUnreadableError("not JSON") from error
    callback = _stk_callback(parsed)
    checkout_request_id = callback.get("CheckoutRequestID")
    if not _is_identifier(checkout_request_id):
        raise CallbackUnreadableError("no CheckoutRequestID")
    result_code = _result_code(callback.get("ResultCode"))
    merchant_request_id = callback.get("MerchantRequestID")
    items = _items(callback.get("CallbackMetadata"))
    return StkCallback(
        checkout_request_id=str(checkout_request_id),
        merchant_request_id=str(merchant_request_id)
        if _is_identifier(merchant_request_id)
        else None,
        result_code=result_code,
        result_desc=text_of(callback.get("ResultDesc")) or "",
        amount=parse_reported_amount(items.get("Amount")),
        receipt=_receipt(items.get("MpesaReceiptNumber")),
        transaction_date=_short_text(items.get("TransactionDate")),
        phone=_short_text(items.get("PhoneNumber")),
    )


def _refuse_constant(constant: str) -> None:
    raise CallbackUnreadableError(f"{constant} is not JSON")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. A name may repeat, but not with another value: which of the two would be meant?"""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members and members[name] != value:
            raise CallbackUnreadableError("contradicts itself")
        members[name] = value
    return members


def _stk_callback(parsed: object) -> dict[str, Any]:
    body = parsed.get("Body") if isinstance(parsed, dict) else None
    callback = body.get("stkCallback") if isinstance(body, dict) else None
    if not isinstance(callback, dict):
        raise CallbackUnreadableError("no Body.stkCallback object")
    return callback


def _is_identifier(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable()


def _result_code(value: object) -> str:
    """A code as text: number, numeric text and `SFC_IC0003` have all been seen."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise CallbackUnreadableError("no ResultCode")
    code = str(value).strip()
    if not 0 < len(code) <= MAX_CODE_LENGTH or not code.isprintable():
        raise CallbackUnreadableError("no ResultCode")
    whole = re.fullmatch(r"([0-9]+)\.0+", code, re.ASCII)
    return whole[1] if whole else code


def _items(metadata: object) -> dict[str, Any]:
    """Metadata by name. Names may repeat: equal values are one, different ones are no value."""
    rows = metadata.get("Item") if isinstance(metadata, dict) else None
    # A lone item has been seen as an object instead of a list in Safaricom's other APIs.
    if isinstance(rows, dict):
        rows = [rows]
    items: dict[str, Any] = {}
    contradicted = set()
    for row in rows if isinstance(rows, list) else []:
        name = row.get("Name") if isinstance(row, dict) else None
        if not isinstance(name, str) or row.get("Value") is None:
            continue
        if name in items and items[name] != row["Value"]:
            contradicted.add(name)
        items[name] = row["Value"]
    return {name: value for name, value in items.items() if name not in contradicted}


def _receipt(value: object) -> str | None:
    """A receipt is 10 capitals and digits today; its length is not promised."""
    text = _short_text(value)
    return text if text and len(text) <= MAX_RECEIPT_LENGTH and text.isalnum() else None


def _short_text(value: object) -> str | None:
    text = text_of(value)
    if text is None or isinstance(value, bool):
        return None
    text = text.strip()
    return text if 0 < len(text) <= 64 and text.isprintable() else None


def _amount_value(amount: Decimal | None) -> int | str | None:
    if amount is None:
        return None
    return int(amount) if amount == amount.to_integral_value() else str(amount)


def _number_or_text(text: str | None) -> int | str | None:
    """Digits as the number Safaricom documents; a masked phone and a leading zero stay text."""
    if text is not None and re.fullmatch("[1-9][0-9]{0,14}", text, re.ASCII):
        return int(text)
    return text

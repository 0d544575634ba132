"""The body of a callback, in the bytes that Safaricom sends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from daraja_simulator.ids import stamp
from daraja_simulator.outcomes import RESULT_TEXTS, CallbackShape, Outcome
from daraja_simulator.replies import PaymentIds

CONTENT_TYPE = "application/json;charset=UTF-8"
JAVA_BALANCE = "{Amount={CurrencyCode=KES, MinimumAmount=618683, BasicAmount=6186.83}}"


@dataclass(frozen=True)
class Debit:
    """Money that a customer paid: whole shillings, at a time, under a receipt number."""

    amount: int
    phone: str
    receipt: str
    at: datetime


def callback_body(ids: PaymentIds, outcome: Outcome, debit: Debit | None) -> bytes:
    """The callback of a payment; `debit` is None when the customer did not pay.

    Written as text, because `1.00` must stand there as a number with two decimals.
    """
    shape = outcome.callback_shape
    members = [
        _member("MerchantRequestID", json.dumps(ids.merchant_request_id)),
        _member("CheckoutRequestID", json.dumps(ids.checkout_request_id)),
        _member("ResultCode", _result_code(outcome.code_in_callback, shape)),
        _member("ResultDesc", json.dumps(RESULT_TEXTS[outcome.result_code].callback)),
    ]
    if debit is not None and shape is not CallbackShape.NO_METADATA:
        items = ",".join(_items(debit, outcome.amount_error, shape))
        members.append(_member("CallbackMetadata", f'{{"Item":[{items}]}}'))
    return f'{{"Body":{{"stkCallback":{{{",".join(members)}}}}}}}'.encode()


def _member(name: str, value_json: str) -> str:
    return f'"{name}":{value_json}'


def _result_code(code: str, shape: CallbackShape) -> str:
    """A JSON number, but for codes such as SFC_IC0003 [I] and zeros that no number has."""
    is_number = code.isdecimal() and str(int(code)) == code
    return code if is_number and shape is not CallbackShape.STRINGS else json.dumps(code)


def _items(debit: Debit, amount_error: int, shape: CallbackShape) -> list[str]:
    number: Callable[[str], str] = json.dumps if shape is CallbackShape.STRINGS else str
    amount = _item("Amount", number(f"{debit.amount + amount_error}.00"))
    rest = [
        _item("MpesaReceiptNumber", json.dumps(debit.receipt)),
        _balance(shape),
        _item("TransactionDate", number(stamp(debit.at))),
        _item("PhoneNumber", _phone(debit.phone, shape)),
    ]
    return rest if shape is CallbackShape.NO_AMOUNT else [amount, *rest]


def _balance(shape: CallbackShape) -> str:
    """Without a Value, as it really comes [I]; or as the text of a Java object [I]."""
    if shape is CallbackShape.BALANCE_TEXT:
        return _item("Balance", json.dumps(JAVA_BALANCE))
    return '{"Name":"Balance"}'


def _phone(phone: str, shape: CallbackShape) -> str:
    """A number, a text, or an unsalted SHA-256 [I]."""
    if shape is CallbackShape.HASHED_PHONE:
        return json.dumps(hashlib.sha256(phone.encode()).hexdigest())
    return json.dumps(phone) if shape is CallbackShape.STRINGS else phone


def _item(name: str, value_json: str) -> str:
    return f'{{"Name":"{name}","Value":{value_json}}}'

"""Callback bodies, as Safaricom writes them."""

from __future__ import annotations

import json
from typing import Any

from harness.factories import CHECKOUT_REQUEST_ID, RECEIPT
from harness.properties import as_bytes
from mpesa_gateway.domain.callback import (
    StkCallback,
    parse_stk_callback,
)

MERCHANT_REQUEST_ID = "2654-4b64-97ff-b827b542881d3130"
DESCRIPTION = "The service request is processed successfully."
ITEMS: list[dict[str, Any]] = [
    {"Name": "Amount", "Value": 10},
    {"Name": "MpesaReceiptNumber", "Value": RECEIPT},
    {"Name": "Balance"},
    {"Name": "TransactionDate", "Value": 20261002181102},
    {"Name": "PhoneNumber", "Value": 254708374149},
]


def callback_body(
    checkout_request_id: str,
    *,
    code: Any = 0,
    amount: Any = 10,
    receipt: str | None = "UJ22T8IYOU",
    **items: Any,
) -> bytes:
    """A callback; None leaves an item out. A failure (code not 0) carries no metadata."""
    callback: dict[str, Any] = {
        "MerchantRequestID": MERCHANT_REQUEST_ID,
        "CheckoutRequestID": checkout_request_id,
        "ResultCode": code,
        "ResultDesc": DESCRIPTION,
    }
    values = {
        "Amount": amount,
        "MpesaReceiptNumber": receipt,
        "TransactionDate": 20261002181102,
        "PhoneNumber": 254708374149,
        **items,
    }
    if str(code) == "0":
        rows = [{"Name": name, "Value": value} for name, value in values.items() if value]
        callback["CallbackMetadata"] = {"Item": rows}
    else:
        callback["ResultDesc"] = "Request cancelled by user"
    return json.dumps({"Body": {"stkCallback": callback}}).encode()


def body_with(items: Any = ITEMS, **members: Any) -> bytes:
    """A success with these items; a member that is `...` is left out."""
    callback = {
        "MerchantRequestID": MERCHANT_REQUEST_ID,
        "CheckoutRequestID": CHECKOUT_REQUEST_ID,
        "ResultCode": 0,
        "ResultDesc": DESCRIPTION,
        "CallbackMetadata": {"Item": items},
        **members,
    }
    kept = {name: value for name, value in callback.items() if value is not ...}
    return as_bytes({"Body": {"stkCallback": kept}})


def item(name: str, value: Any) -> dict[str, Any]:
    """One row of a callback's metadata."""
    return {"Name": name, "Value": value}


def with_item(name: str, *values: Any) -> StkCallback:
    """The usual items, with these values for one of the names."""
    rest = [it for it in ITEMS if it["Name"] != name]
    return parse_stk_callback(body_with([*rest, *(item(name, value) for value in values)]))

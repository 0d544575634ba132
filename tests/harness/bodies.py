"""Callback bodies, as Safaricom writes them."""

from __future__ import annotations

import json
from typing import Any


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
        "MerchantRequestID": "2654-4b64-97ff-b827b542881d3130",
        "CheckoutRequestID": checkout_request_id,
        "ResultCode": code,
        "ResultDesc": "The service request is processed successfully.",
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

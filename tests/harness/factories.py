"""Values with sensible defaults; a test names only what it is about."""

from __future__ import annotations

import hashlib
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

from harness.clock import NOON
from harness.settings import API_KEY, PASSKEY, SHORT_CODE
from mpesa_gateway.domain.callback import StkCallback
from mpesa_gateway.domain.merchant import Credentials, Merchant
from mpesa_gateway.domain.transaction import PaymentRequest, PushState, Status, Transaction

CHECKOUT_REQUEST_ID = "ws_CO_021020261805069708374149"
RECEIPT = "UJ22T8IYOU"
PHONE = "254708374149"


def make_merchant(**overrides: Any) -> Merchant:
    """A paybill in the sandbox."""
    defaults: dict[str, Any] = {
        "name": "default",
        "base_url": "https://sandbox.safaricom.co.ke",
        "short_code": SHORT_CODE,
        "transaction_type": "CustomerPayBillOnline",
        "till_number": None,
        "credentials": Credentials("test-consumer-key", "test-consumer-secret", PASSKEY),
        "api_key_sha256": (hashlib.sha256(API_KEY.encode()).digest(),),
        "webhook_secrets": (API_KEY,),
    }
    return Merchant(**{**defaults, **overrides})


def make_request(**overrides: Any) -> PaymentRequest:
    """Ten shillings."""
    defaults: dict[str, Any] = {
        "amount": Decimal(10),
        "phone": PHONE,
        "idempotency_key": uuid.uuid4(),
        "webhook_url": "https://shop.example/hook",
    }
    return PaymentRequest(**{**defaults, **overrides})


def make_transaction(**overrides: Any) -> Transaction:
    """A pending payment of ten shillings that Safaricom accepted at noon."""
    defaults: dict[str, Any] = {
        "row": 1,
        "id": uuid.UUID("019c1000-0000-7000-8000-000000000001"),
        "merchant": "default",
        "idempotency_key": uuid.UUID("550e8400-e29b-41d4-a716-446655440000"),
        "request_sha256": b"\0" * 32,
        "status": Status.PENDING,
        "amount": Decimal(10),
        "phone": PHONE,
        "short_code": SHORT_CODE,
        "webhook_url": "https://shop.example/hook",
        "account_reference": "Payment",
        "description": "Payment",
        "push_state": PushState.ACCEPTED,
        "push_lease_until": None,
        "prompt_until": NOON + timedelta(seconds=90),
        "callback_secret_sha256": b"\0" * 32,
        "checkout_request_id": CHECKOUT_REQUEST_ID,
        "merchant_request_id": "2654-4b64-97ff-b827b542881d3130",
        "response_status": 201,
        "response_body": "{}",
        "next_query_at": NOON + timedelta(minutes=1),
        "queries_made": 0,
        "provisional_code": None,
        "receipt": None,
        "metadata": None,
        "result_code": None,
        "result_desc": None,
        "failure_reason": None,
        "settled_by": None,
        "attention": None,
        "in_doubt": False,
        "created_at": NOON,
        "updated_at": NOON,
        "finished_at": None,
    }
    return Transaction(**{**defaults, **overrides})


def make_callback(**overrides: Any) -> StkCallback:
    """A success for `make_transaction()`."""
    defaults: dict[str, Any] = {
        "checkout_request_id": CHECKOUT_REQUEST_ID,
        "merchant_request_id": "2654-4b64-97ff-b827b542881d3130",
        "result_code": "0",
        "result_desc": "The service request is processed successfully.",
        "amount": Decimal(10),
        "receipt": RECEIPT,
        "transaction_date": "20261002181102",
        "phone": PHONE,
    }
    return StkCallback(**{**defaults, **overrides})

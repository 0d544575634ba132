"""What goes to Safaricom: wire formats of paybill and till, East Africa Time, whole shillings."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.factories import make_merchant
from harness.receiver import Answer, Receiver
from harness.settings import PASSKEY, SHORT_CODE
from mpesa_gateway.clients.daraja import Daraja, Push, eat_timestamp, stk_password
from mpesa_gateway.clients.egress import Guard, new_session
from mpesa_gateway.domain.merchant import Credentials, Merchant
from mpesa_gateway.domain.push import PushClass
from mpesa_gateway.domain.query import Asked, QueryClass

# 23:30 in UTC is half past two of the next day in Nairobi.
LATE = datetime(2026, 1, 31, 23, 30, 5, tzinfo=UTC)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with new_session(Guard(vet=False), user_agent="test") as opened:
        yield opened


@pytest.fixture
def daraja(session: requests.Session) -> Daraja:
    return Daraja(session, lambda: LATE)


def push_of(merchant: Merchant) -> Push:
    return Push(
        merchant=merchant,
        amount=Decimal(150),
        phone="254708374149",
        callback_url="https://pay.example/callback/00ff",
        account_reference="INV-1",
        description="Shoes",
    )


def sent(receiver: Receiver) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(receiver.requests[-1].body)
    return body


def base(receiver: Receiver) -> str:
    return receiver.url.removesuffix("/hook")


def test_a_paybill_pays_itself(daraja: Daraja, receiver: Receiver) -> None:
    merchant = make_merchant(
        base_url=base(receiver), short_code="174379", credentials=Credentials("k", "s", "passkey")
    )
    daraja.push(push_of(merchant), "token")

    request = receiver.requests[-1]
    assert request.path == "/mpesa/stkpush/v1/processrequest"
    assert request.headers["authorization"] == "Bearer token"
    assert request.headers["content-type"] == "application/json"
    assert sent(receiver) == {
        "BusinessShortCode": 174379,
        "Password": base64.b64encode(b"174379passkey20260201023005").decode(),
        "Timestamp": "20260201023005",
        "TransactionType": "CustomerPayBillOnline",
        "Amount": "150",
        "PartyA": "254708374149",
        "PartyB": "174379",
        "PhoneNumber": "254708374149",
        "CallBackURL": "https://pay.example/callback/00ff",
        "AccountReference": "INV-1",
        "TransactionDesc": "Shoes",
    }


def test_a_till_is_paid_through_its_store_number(daraja: Daraja, receiver: Receiver) -> None:
    merchant = make_merchant(
        base_url=base(receiver),
        short_code="600111",
        transaction_type="CustomerBuyGoodsOnline",
        till_number="512345",
    )
    daraja.push(push_of(merchant), "token")

    body = sent(receiver)
    assert body["BusinessShortCode"] == 600111
    assert body["PartyB"] == "512345"
    assert body["TransactionType"] == "CustomerBuyGoodsOnline"


def test_a_short_code_whose_zero_a_number_would_lose_stays_text(
    daraja: Daraja, receiver: Receiver
) -> None:
    daraja.push(push_of(make_merchant(base_url=base(receiver), short_code="012345")), "token")

    assert sent(receiver)["BusinessShortCode"] == "012345"


def test_a_query_names_the_payment_and_nothing_else(daraja: Daraja, receiver: Receiver) -> None:
    merchant = make_merchant(base_url=base(receiver), short_code="174379")
    daraja.query(merchant, Asked("ws_CO_1"), "token")

    assert receiver.requests[-1].path == "/mpesa/stkpushquery/v1/query"
    assert set(sent(receiver)) == {
        "BusinessShortCode",
        "Password",
        "Timestamp",
        "CheckoutRequestID",
    }


def test_oauth_is_asked_with_the_apps_key_and_secret(daraja: Daraja, receiver: Receiver) -> None:
    receiver.default = Answer(200, body=b'{"access_token": "abc", "expires_in": "3599"}')
    answer = daraja.fetch_token(base(receiver), "key", "secret")

    request = receiver.requests[-1]
    assert request.path == "/oauth/v1/generate?grant_type=client_credentials"
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"key:secret").decode()
    assert (answer.token, answer.expires_in_s) == ("abc", 3599)


def test_the_simulator_accepts_our_password_and_refuses_a_wrong_one(
    daraja: Daraja, simulator: RunningSimulator
) -> None:
    simulator.change(passkeys={SHORT_CODE: PASSKEY})
    for passkey, kind in ((PASSKEY, PushClass.ACCEPTED), ("wrong", PushClass.REFUSED)):
        merchant = make_merchant(
            base_url=simulator.url,
            short_code=SHORT_CODE,
            credentials=Credentials("k", "s", passkey),
        )
        token = daraja.fetch_token(simulator.url, "k", "s").token
        assert token is not None
        outcome = daraja.push(push_of(merchant), token)

        assert outcome.kind is kind, outcome


def test_eat_is_three_hours_ahead_all_year() -> None:
    assert eat_timestamp(datetime(2026, 7, 1, 21, 0, 0, tzinfo=UTC)) == "20260702000000"
    assert stk_password("1", "2", "3") == base64.b64encode(b"123").decode()


def cut_in_the_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
    handler.close_connection = True


@pytest.mark.parametrize(
    "answer",
    [
        Answer(301, {"Location": "/elsewhere"}),
        Answer(act=cut_in_the_body),
        Answer(200, body=b"x" * 100_000),
    ],
    ids=["redirect", "cut in the body", "too long"],
)
def test_an_answer_that_cannot_be_read_is_unknown(
    daraja: Daraja, receiver: Receiver, answer: Answer
) -> None:
    receiver.default = answer
    outcome = daraja.push(push_of(make_merchant(base_url=base(receiver))), "token")

    assert outcome.kind is PushClass.UNKNOWN
    assert len(receiver.requests) == 1


def test_a_connection_that_is_refused_is_certainly_not_sent(daraja: Daraja) -> None:
    merchant = make_merchant(base_url="http://127.0.0.1:1")

    assert daraja.push(push_of(merchant), "token").kind is PushClass.NOT_SENT
    assert daraja.query(merchant, Asked("ws_CO_1"), "token").kind is QueryClass.NO_INFORMATION
    assert daraja.fetch_token(merchant.base_url, "k", "s").token is None


def test_a_connection_that_is_cut_after_the_request_is_unknown(
    daraja: Daraja, receiver: Receiver
) -> None:
    receiver.default = Answer(act=lambda handler: setattr(handler, "close_connection", True))
    merchant = make_merchant(base_url=base(receiver))

    assert daraja.push(push_of(merchant), "token").kind is PushClass.UNKNOWN
    assert daraja.query(merchant, Asked("ws_CO_1"), "token").kind is QueryClass.NO_INFORMATION

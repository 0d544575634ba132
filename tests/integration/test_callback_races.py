"""A callback that is faster than the push's own answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest

from daraja_simulator.server import RunningSimulator
from harness.bodies import callback_body
from harness.gateway import Gateway, open_gateway
from harness.receiver import Answer, Receiver
from harness.safaricom import PUSH_PATH, FakeSafaricom
from harness.settling import SILENT, outcomes, settle, types_told
from mpesa_devkit.embedded import EmbeddedRedis

CHECKOUT = "ws_CO_021020261805069708374149"


@pytest.fixture
def safaricom() -> Iterator[FakeSafaricom]:
    with FakeSafaricom() as running:
        yield running


@pytest.fixture
def by_hand(
    database_url: str,
    redis_server: EmbeddedRedis,
    simulator: RunningSimulator,
    receiver: Receiver,
    safaricom: FakeSafaricom,
) -> Iterator[Gateway]:
    base_url = f"http://127.0.0.1:{safaricom.port}"
    with open_gateway(
        database_url, redis_server.url(), simulator, receiver, safaricom_base_url=base_url
    ) as gateway:
        yield gateway


def test_a_push_answer_after_a_wrong_amount_does_not_start_the_queries_again(
    by_hand: Gateway, safaricom: FakeSafaricom
) -> None:
    def call_back_and_then_accept(handler: BaseHTTPRequestHandler) -> None:
        (push,) = [it for it in safaricom.requests if it.path == PUSH_PATH]
        path = urlsplit(json.loads(push.body)["CallBackURL"]).path
        assert by_hand.post(path, callback_body(CHECKOUT, amount=11)).status_code == 200
        by_hand.work()
        accepted = {"ResponseCode": "0", "CheckoutRequestID": CHECKOUT, "MerchantRequestID": "1"}
        body = json.dumps(accepted).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    safaricom.token()
    safaricom.answers.append(Answer(act=call_back_and_then_accept))
    transaction_id = by_hand.pay()
    asked = len(safaricom.requests)

    assert "another amount" in by_hand.transaction(transaction_id)["attention"]
    by_hand.clock.advance(hours=3)
    by_hand.sweep()

    assert by_hand.transaction(transaction_id)["status"] == "PENDING"
    assert len(safaricom.requests) == asked, "nobody asks, and no query settles"


def test_a_callback_that_comes_before_the_pushs_answer_settles_by_its_token(
    gateway: Gateway,
) -> None:
    transaction_id = gateway.pay("254712343131")
    gateway.work()

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert view["push"] == "ACCEPTED"
    assert types_told(gateway) == ["transaction.completed"]


def test_a_callback_applied_while_its_push_is_in_flight_teaches_the_id(gateway: Gateway) -> None:
    """The worker is faster than the push's answer."""
    phone = "254712343131"
    done = threading.Event()

    def work_until_done() -> None:
        while not done.wait(0.005):
            gateway.work()

    worker = threading.Thread(target=work_until_done)
    worker.start()
    transaction_id = gateway.pay(phone)
    done.set()
    worker.join()
    gateway.work()

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert view["checkout_request_id"] == gateway.checkout_request_id(phone)
    assert types_told(gateway) == ["transaction.completed"]


def test_a_plain_callback_before_the_pushs_answer_is_kept_and_settles_after_it(
    gateway: Gateway,
) -> None:
    checkout = "ws_CO_11012024135500"
    settle(gateway, callback_body(checkout), path="/callback")
    assert outcomes(gateway) == [("QUARANTINED", "unmatched")]
    gateway.next_push(CheckoutRequestID=checkout)
    transaction_id = gateway.pay(SILENT)
    gateway.work()

    assert gateway.transaction(transaction_id)["status"] == "COMPLETED"
    assert outcomes(gateway) == [("APPLIED", "completed")]

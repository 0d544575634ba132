"""POST /initiate: what each answer of Safaricom, and each way to get none, means for the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.gateway import Gateway, open_gateway
from harness.initiate import assert_failed, assert_pending
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.safaricom import ACCEPTED, HTML, accepted, error

Phones = Callable[[str], str]
SHARED = "500.001.1001"


def fault(code: str) -> dict[str, Any]:
    return {"fault": {"faultstring": "Too many.", "detail": {"errorcode": code}}}


def answer_next(gateway: Gateway, status: int, body: object, **other: Any) -> None:
    """The next push gets this answer and, unless `accepted`, nothing else happens."""
    content = {"answer": {"status": status, "body": body, **other}}
    requests.put(f"{gateway.simulator.url}/next", json=content, timeout=5).raise_for_status()


def pushes(gateway: Gateway, phone: str) -> int:
    return len(gateway.simulator.ledger(phone=phone)["pushes"])


def test_an_accepted_push_is_created_with_safaricoms_ids(gateway: Gateway) -> None:
    gateway.simulator.change(callback_delay=60.0)

    view = assert_pending(gateway, gateway.initiate(), "ACCEPTED")

    (push,) = gateway.simulator.ledger()["pushes"]
    assert push["accepted"]
    assert view["checkout_request_id"] == push["checkout_request_id"]
    assert view["next_step"]["action"] == "query"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, HTML),
        (200, ""),
        (200, "{"),
        (200, "null"),
        (200, "[]"),
        (200, "NaN"),
        (200, {}),
        (200, {"ResponseCode": "0", "ResponseDescription": "Success"}),
        (200, {**ACCEPTED, "CheckoutRequestID": ""}),
        (200, {**ACCEPTED, "CheckoutRequestID": None}),
        (200, {**ACCEPTED, "CheckoutRequestID": 7}),
        (200, {**ACCEPTED, "CheckoutRequestID": "x" * 129}),
        (200, {"errorCode": "999.999.99", "errorMessage": "New."}),
        (200, {"errorCode": None}),
        (200, {"fault": {"detail": {"errorcode": "something.new"}}}),
        (200, {"fault": "x"}),
        (302, ""),
        (400, HTML),
        (400, {}),
        (400, error("400.999.99")),
        (401, HTML),
        (403, HTML),
        (404, HTML),
        (500, {}),
        (500, HTML),
        (500, error("500.003.1001", "Internal Server Error")),
        (500, error(SHARED, "")),
        (500, error(SHARED, "The transaction is being processed")),
        (502, HTML),
        (503, HTML),
        (504, ""),
        (599, "?"),
        (400, "[" * 5000),
    ],
    ids=lambda it: str(it)[:48],
)
def test_an_answer_that_proves_nothing_is_unknown_and_pending(
    shared: Gateway, new_phone: Phones, status: int, body: object
) -> None:
    phone = new_phone("0000")
    answer_next(shared, status, body)

    view = assert_pending(shared, shared.initiate(phone), "UNKNOWN")

    assert view["checkout_request_id"] is None
    assert pushes(shared, phone) == 1


@pytest.mark.parametrize("code", [0, "1", "17", None])
def test_an_answer_with_an_id_is_never_a_refusal(
    shared: Gateway, new_phone: Phones, code: object
) -> None:
    phone, answer = new_phone("0000"), {**accepted(), "ResponseCode": code}
    answer_next(shared, 200, answer)

    view = assert_pending(shared, shared.initiate(phone), "ACCEPTED" if code == 0 else "UNKNOWN")

    assert view["checkout_request_id"] == answer["CheckoutRequestID"]


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 503])
@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("400.002.02", "Bad Request - Invalid Amount", "refused"),
        ("400.002.05", "Invalid Request Payload", "refused"),
        ("404.001.04", "Invalid Authentication Header", "refused"),
        (SHARED, "Merchant does not exist", "refused_merchant"),
        (SHARED, "[MerchantValidate] - Wrong credentials", "refused_merchant"),
        ("401.003.01", "Invalid API call as no apiproduct match found", "refused_merchant"),
    ],
    ids=lambda it: str(it)[:16],
)
def test_a_documented_refusal_is_final_whatever_the_http_status(
    shared: Gateway, new_phone: Phones, status: int, code: str, message: str, reason: str
) -> None:
    phone = new_phone("0000")
    answer_next(shared, status, error(code, message))

    document = assert_problem(shared.initiate(phone), 502, "refused-by-safaricom")

    assert document["safaricom"] == {"code": code, "message": message}
    view = assert_failed(shared, document, reason)
    assert view["push"] == "REFUSED"
    assert "retry_after" not in document
    assert pushes(shared, phone) == 1


def test_a_refusal_by_response_code_is_final(shared: Gateway, new_phone: Phones) -> None:
    phone = new_phone("0000")
    answer_next(shared, 200, {"ResponseCode": "1", "ResponseDescription": "Rejected"})

    document = assert_problem(shared.initiate(phone), 502, "refused-by-safaricom")

    assert document["safaricom"] == {"code": "1", "message": "Rejected"}
    assert_failed(shared, document, "refused")


@pytest.mark.parametrize(
    ("status", "body", "wait"),
    [
        (429, "", 30),
        (429, HTML, 30),
        (429, {}, 30),
        (429, fault("policies.ratelimit.SpikeArrestViolation"), 30),
        (200, fault("policies.ratelimit.SpikeArrestViolation"), 30),
        (429, fault("policies.ratelimit.QuotaViolation"), 300),
        (500, error("500.003.02", "System is busy."), 30),
        (200, error("500.003.02", "System is busy."), 30),
        (503, error("500.003.02", "System is busy."), 30),
        (500, error("500.003.03", "Quota Violation"), 300),
        (500, error(SHARED, "Unable to lock subscriber, a transaction is in process"), 60),
    ],
    ids=lambda it: str(it)[:40],
)
def test_a_throttled_push_was_not_sent_and_may_be_tried_with_a_new_key(
    shared: Gateway, new_phone: Phones, status: int, body: object, wait: int
) -> None:
    phone = new_phone("0000")
    answer_next(shared, status, body)

    document = assert_problem(shared.initiate(phone), 503, "not-sent")

    assert document["retry_after"] == wait
    assert "new idempotency key" in document["detail"]
    view = assert_failed(shared, document, "not_sent")
    assert view["push"] == "NOT_SENT"
    assert pushes(shared, phone) == 1


@pytest.mark.parametrize(
    ("phone", "charged"),
    [
        ("254712345040", 1),  # accepted, then cut
        ("254712345041", 1),  # 500.003.1001 although accepted
        ("254712348003", 1),  # 200 without an id
        ("254712348002", 0),  # HTML
    ],
)
def test_what_may_have_been_charged_stays_pending_and_is_never_sent_again(
    gateway: Gateway, phone: str, charged: int
) -> None:
    gateway.simulator.change(callback_drop_rate=1.0)

    assert_pending(gateway, gateway.initiate(phone), "UNKNOWN")

    gateway.clock.advance(minutes=10)
    gateway.sweep()
    gateway.simulator.wait_until_idle()
    ledger = gateway.simulator.ledger()
    assert (len(ledger["pushes"]), len(ledger["debits"])) == (1, charged)


def test_a_push_budget_that_is_used_up_means_not_sent(
    database_url: str, redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    with open_gateway(
        database_url, redis_url, simulator, receiver, safaricom_push_per_minute="1"
    ) as gateway:
        gateway.pay("254712344042")

        document = assert_problem(gateway.initiate("254722340000"), 503, "not-sent")

        assert 1 <= document["retry_after"] <= 60
        assert_failed(gateway, document, "not_sent")
        assert len(gateway.simulator.ledger()["pushes"]) == 1


def test_what_safaricom_says_is_passed_on_in_bounds(shared: Gateway, new_phone: Phones) -> None:
    phone = new_phone("0000")
    answer_next(shared, 400, error("400.002.02", "x" * 5000))

    document = assert_problem(shared.initiate(phone), 502, "refused-by-safaricom")

    assert len(document["safaricom"]["message"]) <= 300

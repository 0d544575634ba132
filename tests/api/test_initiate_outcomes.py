"""POST /initiate: what each answer of Safaricom, and each way to get none, means for the caller."""

from __future__ import annotations

import json
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.gateway import Gateway, open_gateway
from harness.problems import assert_problem
from harness.receiver import Answer, Receiver
from harness.safaricom import FakeSafaricom
from harness.settings import API_KEY
from harness.waiting import wait_for
from mpesa_gateway.demo.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_gateway.demo.processes import free_port

Phones = Callable[[str], str]
HTML = "<html><body>Service Unavailable</body></html>"
SHARED = "500.001.1001"


def error(code: str, message: str = "No.") -> dict[str, str]:
    return {"requestId": "1-2-3", "errorCode": code, "errorMessage": message}


def fault(code: str) -> dict[str, Any]:
    return {"fault": {"faultstring": "Too many.", "detail": {"errorcode": code}}}


def answer_next(gateway: Gateway, status: int, body: object, **other: Any) -> None:
    """The next push gets this answer and, unless `accepted`, nothing else happens."""
    content = {"answer": {"status": status, "body": body, **other}}
    requests.put(f"{gateway.simulator.url}/next", json=content, timeout=5).raise_for_status()


def pushes(gateway: Gateway, phone: str) -> int:
    return len(gateway.simulator.ledger(phone=phone)["pushes"])


def assert_pending(gateway: Gateway, response: requests.Response, push: str) -> dict[str, Any]:
    """Accepted or unknown, for the caller the same; nobody is told of an end."""
    assert response.status_code == 201, response.text
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert body == {"transaction_id": body["transaction_id"], "status": "PENDING"}
    assert uuid.UUID(body["transaction_id"]).version == 7
    view = gateway.transaction(body["transaction_id"])
    assert (view["status"], view["push"]) == ("PENDING", push)
    gateway.work()
    assert gateway.get(f"/transactions/{view['transaction_id']}/deliveries").json()["items"] == []
    return view


def assert_failed(gateway: Gateway, document: dict[str, Any], reason: str) -> dict[str, Any]:
    """The transaction is FAILED for that reason, and one webhook will say so."""
    assert document["transaction_status"] == "FAILED"
    assert document["reason"] == reason
    view = gateway.transaction(document["transaction_id"])
    assert (view["status"], view["settled_by"]) == ("FAILED", "push")
    assert view["failure"]["reason"] == reason
    assert view["checkout_request_id"] is None
    gateway.work()
    (webhook,) = gateway.receiver.of(document["transaction_id"])
    told = webhook.verify(API_KEY)
    assert told["type"] == "transaction.failed"
    assert told["failure"]["reason"] == reason
    return view


def test_an_accepted_push_is_created_with_safaricoms_ids(gateway: Gateway) -> None:
    gateway.simulator.change(callback_delay=60.0)

    view = assert_pending(gateway, gateway.initiate(), "ACCEPTED")

    (push,) = gateway.simulator.ledger()["pushes"]
    assert push["accepted"]
    assert view["checkout_request_id"] == push["checkout_request_id"]
    assert view["next_step"]["action"] == "query"


ACCEPTED = {"MerchantRequestID": "1", "CheckoutRequestID": "ws_CO_1", "ResponseCode": "0"}


def accepted() -> dict[str, Any]:
    """An accepting answer with an id of its own."""
    return {**ACCEPTED, "CheckoutRequestID": f"ws_CO_{uuid.uuid4().hex}"}


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


def test_a_rejected_token_is_renewed_and_the_push_sent_once_more(gateway: Gateway) -> None:
    gateway.pay("254712344042")
    requests.post(f"{gateway.simulator.url}/expire-tokens", timeout=5).raise_for_status()

    gateway.pay("254722340000")

    gateway.simulator.wait_until_idle()
    ledger = gateway.simulator.ledger()
    assert [push["accepted"] for push in ledger["pushes"]] == [True, False, True]
    assert [debit["phone"] for debit in ledger["debits"]] == ["254722340000"]
    assert len(ledger["tokens"]) == 2


def test_wrong_credentials_are_refused_and_nothing_is_sent(gateway: Gateway) -> None:
    # Safaricom answers 400 with an empty body.
    gateway.simulator.change(credentials={"another-key": "another-secret"})

    document = assert_problem(gateway.initiate(), 502, "refused-by-safaricom")

    view = assert_failed(gateway, document, "credentials_refused")
    assert view["push"] == "REFUSED"
    assert gateway.simulator.ledger()["pushes"] == []


@pytest.fixture(scope="module")
def _by_hand(
    postgres: EmbeddedPostgres, redis_server: EmbeddedRedis
) -> Iterator[tuple[Gateway, FakeSafaricom]]:
    url = postgres.create_database("by_hand", "template_gateway")
    with (
        FakeSafaricom() as safaricom,
        RunningSimulator() as unused,
        Receiver() as receiver,
        open_gateway(
            url,
            redis_server.url(),
            unused,
            receiver,
            safaricom_base_url=f"http://127.0.0.1:{safaricom.port}",
        ) as running,
    ):
        yield running, safaricom
    postgres.drop_database("by_hand")


@pytest.fixture
def safaricom(_by_hand: tuple[Gateway, FakeSafaricom]) -> FakeSafaricom:
    """What `by_hand` talks to; it has seen and says nothing yet."""
    running = _by_hand[1]
    running.answers.clear()
    running.requests.clear()
    running.default = Answer(500)
    return running


@pytest.fixture
def by_hand(_by_hand: tuple[Gateway, FakeSafaricom], redis_url: str) -> Gateway:
    """A gateway whose Safaricom is `safaricom`. It holds no token."""
    assert redis_url
    _by_hand[0].services.tokens._local.clear()
    return _by_hand[0]


REJECTED = [
    (404, error("404.001.03", "Invalid Access Token")),
    (401, error("401.003.01", "Error Occurred - Invalid Access Token - abc")),
    (400, error("400.003.01", "Invalid Access Token")),
    (401, error("401.002.01", "Error Occurred - Invalid Access Token")),
]


@pytest.mark.parametrize("rejected", REJECTED, ids=lambda it: str(it[1]["errorCode"]))
def test_every_form_of_a_rejected_token_is_tried_once_with_a_new_one(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, rejected: tuple[int, Any]
) -> None:
    safaricom.token("old")
    safaricom.push(*rejected)
    safaricom.token("new")
    answer = accepted()
    safaricom.push(200, answer)

    view = assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "ACCEPTED")

    assert safaricom.pushed == ["old", "new"]
    assert view["checkout_request_id"] == answer["CheckoutRequestID"]


@pytest.mark.parametrize("rejected", REJECTED, ids=lambda it: str(it[1]["errorCode"]))
def test_a_fresh_token_rejected_again_means_refused_credentials(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, rejected: tuple[int, Any]
) -> None:
    safaricom.token("old")
    safaricom.push(*rejected)
    safaricom.token("new")
    safaricom.push(*rejected)

    document = assert_problem(by_hand.initiate(new_phone("0000")), 502, "refused-by-safaricom")

    assert safaricom.pushed == ["old", "new"]
    assert_failed(by_hand, document, "credentials_refused")


@pytest.mark.parametrize(
    ("second", "push", "status"),
    [((500, error("500.003.02")), "NOT_SENT", 503), ((503, HTML), "UNKNOWN", 201)],
    ids=["busy", "html"],
)
def test_the_second_push_is_judged_like_the_first(
    by_hand: Gateway,
    safaricom: FakeSafaricom,
    new_phone: Phones,
    second: tuple[int, Any],
    push: str,
    status: int,
) -> None:
    safaricom.token("old")
    safaricom.push(*REJECTED[0])
    safaricom.token("new")
    safaricom.push(*second)

    response = by_hand.initiate(new_phone("0000"))

    assert response.status_code == status
    assert by_hand.transaction(response.json()["transaction_id"])["push"] == push
    assert safaricom.pushed == ["old", "new"]


@pytest.mark.parametrize(
    ("status", "body", "slug"),
    [
        (400, b"", "refused-by-safaricom"),
        (401, b"", "refused-by-safaricom"),
        (400, json.dumps(error("400.008.01")).encode(), "refused-by-safaricom"),
        (503, HTML.encode(), "not-sent"),
        (500, b"", "not-sent"),
        (429, b"", "not-sent"),
        (404, b"", "not-sent"),
        (200, b"", "not-sent"),
        (200, b"{}", "not-sent"),
        (200, b'{"access_token": ""}', "not-sent"),
        (200, b'{"access_token": "a\\r\\nX: b"}', "not-sent"),
        (200, b'{"access_token": 7}', "not-sent"),
        (302, b"", "not-sent"),
    ],
    ids=lambda it: repr(it)[:32],
)
def test_without_a_token_nothing_is_pushed(
    by_hand: Gateway,
    safaricom: FakeSafaricom,
    new_phone: Phones,
    status: int,
    body: bytes,
    slug: str,
) -> None:
    safaricom.default = Answer(status, {"Location": "http://127.0.0.1:1/"}, body)

    response = by_hand.initiate(new_phone("0000"))

    document = assert_problem(response, 503 if slug == "not-sent" else 502, slug)
    assert_failed(by_hand, document, "not_sent" if slug == "not-sent" else "credentials_refused")
    assert safaricom.pushed == []


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Close without an answer."""
    handler.close_connection = True


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Close with a TCP reset, as a load balancer does that lost its backend."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def half(handler: BaseHTTPRequestHandler) -> None:
    """Promise more than is sent."""
    body = json.dumps(ACCEPTED).encode()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + body)
    handler.close_connection = True


def noise(handler: BaseHTTPRequestHandler) -> None:
    """Not HTTP."""
    handler.wfile.write(b"\x15\x03\x01\x00\x02\x02\x46")
    handler.close_connection = True


def flood(handler: BaseHTTPRequestHandler) -> None:
    """More than anybody wants to read."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b" " * 1_000_000)
    handler.close_connection = True


@pytest.mark.parametrize("act", [cut, reset, half, noise, flood])
def test_a_connection_that_breaks_after_the_request_left_is_unknown_and_pending(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, act: Any
) -> None:
    safaricom.token()
    safaricom.answers.append(Answer(act=act))

    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "UNKNOWN")

    assert len(safaricom.pushed) == 1


def test_a_push_that_is_not_answered_in_time_is_unknown_and_pending(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    over = threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        over.wait(30)

    safaricom.token()
    safaricom.answers.append(Answer(act=hang))

    response = by_hand.initiate(new_phone("0000"))
    over.set()

    assert_pending(by_hand, response, "UNKNOWN")
    assert len(safaricom.pushed) == 1
    assert 14 < response.elapsed.total_seconds() < 20


def test_an_unreachable_safaricom_means_not_sent(
    database_url: str, redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    base_url = f"http://127.0.0.1:{free_port()}"
    with open_gateway(
        database_url, redis_url, simulator, receiver, safaricom_base_url=base_url
    ) as gateway:
        document = assert_problem(gateway.initiate(), 503, "not-sent")

        assert_failed(gateway, document, "not_sent")


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


def test_without_postgres_nothing_is_sent_and_the_key_is_still_free(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    with open_gateway(own_database_url, redis_url, simulator, receiver) as gateway:
        wait_for(lambda: gateway.get("/health").ok, what="the pool")
        own_postgres.stop()
        body = gateway.body("254712344042")
        headers = {"X-Internal-Secret": API_KEY}

        def post() -> requests.Response:
            url = f"{gateway.url}/initiate"
            return gateway.session.post(url, json=body, headers=headers, timeout=30)

        document = assert_problem(post(), 503, "unavailable")

        assert document["retry_after"] >= 1
        assert "transaction_id" not in document
        assert gateway.simulator.ledger() == {
            "pushes": [],
            "debits": [],
            "callbacks": [],
            "tokens": [],
            "queries": [],
        }
        own_postgres.start()
        wait_for(lambda: gateway.get("/health").ok, what="Postgres to be back")
        again = post()
        assert again.status_code == 201
        assert "Idempotent-Replayed" not in again.headers
        assert len(gateway.simulator.ledger()["pushes"]) == 1


def test_an_accepted_push_is_saved_although_postgres_went_away_meanwhile(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    simulator.change(push_delay=0.5, callback_delay=60.0)
    phone = "254733340000"
    answers: list[requests.Response] = []
    with open_gateway(own_database_url, redis_url, simulator, receiver) as gateway:
        thread = threading.Thread(target=lambda: answers.append(gateway.initiate(phone)))
        thread.start()
        wait_for(lambda: simulator.ledger(phone=phone)["pushes"], what="the push")
        own_postgres.stop()
        own_postgres.start()
        thread.join()

        assert answers[0].status_code == 201, answers[0].text
        view = gateway.transaction(answers[0].json()["transaction_id"])
        (push,) = simulator.ledger(phone=phone)["pushes"]
        assert view["push"] == "ACCEPTED"
        assert view["checkout_request_id"] == push["checkout_request_id"]

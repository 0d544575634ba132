"""The demo's endpoint believes a webhook only when both signatures hold."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from harness.collecting import every_case
from mpesa_demo.receiver import (
    BODY_LIMIT,
    TOLERANCE_S,
    Receiver,
    find_problem,
)
from mpesa_gateway.domain.signature import webhook_headers

SECRETS = ["plain-secret-of-a-merchant", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
SECRET = SECRETS[1]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
BODY = b'{"type":"transaction.completed","transaction_id":"t-1"}'


def signed(
    body: bytes = BODY, *, secrets: tuple[str, ...] = (SECRET,), at: datetime = NOW
) -> dict[str, str]:
    headers = webhook_headers("msg_1", secrets, body, at)
    return {name.lower(): value for name, value in headers.items()}


def problem(headers: dict[str, str], body: bytes = BODY, secret: str = SECRET) -> str:
    found = find_problem(secret, headers, body, NOW.timestamp())
    assert found is not None
    return found


@pytest.mark.parametrize("secret", SECRETS)
def test_what_the_gateway_signs_is_believed(secret: str) -> None:
    headers = signed(secrets=(secret,))
    assert find_problem(secret, headers, BODY, NOW.timestamp()) is None


def test_while_a_secret_rotates_the_second_signature_is_enough() -> None:
    headers = signed(secrets=("the-newer-secret", SECRET))
    headers["x-signature"] = signed()["x-signature"]
    assert find_problem(SECRET, headers, BODY, NOW.timestamp()) is None


def test_a_tampered_body_is_not_believed() -> None:
    assert "X-Signature" in problem(signed(), BODY.replace(b"t-1", b"t-2"))


def test_another_secret_is_not_believed() -> None:
    assert "X-Signature" in problem(signed(), secret=SECRETS[0])


def test_x_signature_alone_is_not_enough() -> None:
    headers = {**signed(), "webhook-signature": "v1,AAAA"}
    assert "webhook-signature" in problem(headers)


def test_the_standard_triple_alone_is_not_enough() -> None:
    assert "X-Signature" in problem({**signed(), "x-signature": ""})


def test_the_signature_covers_the_id() -> None:
    assert "webhook-signature" in problem({**signed(), "webhook-id": "msg_2"})


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_each_header_of_the_triple_is_needed(name: str) -> None:
    headers = signed()
    del headers[name]
    assert "missing" in problem(headers)


@pytest.mark.parametrize("seconds", [-TOLERANCE_S - 1, TOLERANCE_S + 1])
def test_an_old_or_future_webhook_is_a_replay(seconds: int) -> None:
    assert "too far" in problem(signed(at=NOW + timedelta(seconds=seconds)))


@every_case("timestamp", ["", "soon", "-5", "1e9", "9" * 5000, "١٢"])
def test_a_timestamp_that_is_no_number_is_refused(timestamp: str) -> None:
    assert problem({**signed(), "webhook-timestamp": timestamp})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(SECRET) as running:
        yield running


def post(receiver: Receiver, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=5)
    try:
        connection.request("POST", "/webhooks", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_keeps_what_it_was_told_and_answers_200(receiver: Receiver) -> None:
    headers = webhook_headers("msg_7", [SECRET], BODY, datetime.now(UTC))
    assert post(receiver, BODY, headers) == 200
    (received,) = receiver.all()
    assert (received.transaction_id, received.type) == ("t-1", "transaction.completed")
    assert (received.webhook_id, received.verified) == ("msg_7", True)


def test_it_keeps_what_it_does_not_believe_and_answers_401(receiver: Receiver) -> None:
    headers = webhook_headers("msg_7", ["wrong"], BODY, datetime.now(UTC))
    assert post(receiver, BODY, headers) == 401
    (received,) = receiver.all()
    assert not received.verified
    assert received.transaction_id == "t-1"


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"[" * 5000])
def test_a_body_that_says_nothing_is_kept_too(receiver: Receiver, body: bytes) -> None:
    assert post(receiver, body, webhook_headers("msg_7", [SECRET], body, datetime.now(UTC))) == 200
    assert receiver.all()[0].transaction_id == ""


def test_a_body_above_the_limit_is_not_read(receiver: Receiver) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=5)
    connection.putrequest("POST", "/webhooks")
    connection.putheader("Content-Length", str(BODY_LIMIT + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert receiver.all() == []


def test_a_body_of_unknown_length_is_not_read(receiver: Receiver) -> None:
    assert post(receiver, b"0\r\n\r\n", {"Transfer-Encoding": "chunked"}) == 411
    assert receiver.all() == []


def test_the_newest_are_those_after_the_ones_seen() -> None:
    receiver = Receiver(SECRET, clock_s=time.time)
    for number in range(3):
        receiver.receive({}, json.dumps({"transaction_id": str(number)}).encode())
    assert receiver.count == 3
    assert [it.transaction_id for it in receiver.since(1)] == ["1", "2"]
    assert receiver.since(3) == []
    receiver._server.server_close()

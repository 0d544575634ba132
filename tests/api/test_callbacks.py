"""POST /callback and /callback/{token}: 200 means that it is in Postgres, byte for byte."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from daraja_simulator.server import RunningSimulator
from harness.bodies import callback_body
from harness.callbacks import ACCEPTED, MIB, assert_accepted, count_kept, kept, paid_silently, post
from harness.collecting import every_case
from harness.gateway import Gateway, open_gateway
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.waiting import wait_for
from harness.wire import Wire, request_bytes
from mpesa_gateway.api.callbacks import inbox as inbox_module

Phones = Callable[[str], str]
BODIES = [
    b"",
    b" ",
    b"\x00",
    b"\r\n\r\n",
    b"\xff\xfe\xfd",
    b"not json",
    b"null",
    b"{",
    b"[]",
    b'{"Body": null}',
    b'{"Body": {"stkCallback": []}}',
    b'{"Body": {"stkCallback": {"ResultCode": "\\u0000"}}}',
    b"[" * 100_000,
    b'{"amount": 1e99999999999999999999}',
    "\u00e9\u4e2d\U0001f600".encode(),
    "\u00e9\u4e2d".encode("utf-16"),
    b"<xml/>",
    b"Body=%7B%7D",
    callback_body("ws_CO_of_nobody"),
    callback_body("x" * 5000),
    bytes(range(256)) * 400,
    bytes(reversed(range(256))) * 4096,
    b"0" * MIB,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda it: f"{len(it)} {it[:16]!r}")
def test_whatever_the_body_says_it_is_kept_byte_for_byte_before_the_answer(
    shared: Gateway, new_phone: Phones, body: bytes
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))

    assert_accepted(post(shared, path, body))

    (row,) = kept(shared, transaction_id)
    assert bytes(row["body"]) == body
    assert (row["by_token"], row["state"], row["copies"]) == (True, "RECEIVED", 1)

    before = shared.rows("SELECT coalesce(max(id), 0) AS id FROM callbacks")[0]["id"]
    assert_accepted(post(shared, "/callback", body))
    (row,) = shared.rows("SELECT * FROM callbacks WHERE id > %s", before)
    assert bytes(row["body"]) == body
    assert not row["by_token"]


def test_a_body_sent_in_chunks_is_kept_whole(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    body = os.urandom(200_000)

    assert_accepted(post(shared, path, iter([body[:7], body[7:150_000], body[150_000:]])))

    (row,) = kept(shared, transaction_id)
    assert bytes(row["body"]) == body


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json;charset=UTF-8", "x" * 600, "\xe9/\xff"]
)
def test_the_content_type_does_not_matter_and_is_kept_in_bounds(
    shared: Gateway, new_phone: Phones, content_type: str
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    head = [f"Content-Type: {content_type}", "User-Agent: saf", "Authorization: Bearer private"]
    with Wire(shared.url) as wire:
        wire.send(request_bytes("POST", path, *head, "Businessshortcode: 174379", body=b"{}"))
        reply = wire.read()

    assert (reply.status, reply.body.decode()) == (200, ACCEPTED)
    (row,) = kept(shared, transaction_id)
    assert row["headers"] == {
        "content-type": content_type[:512],
        "user-agent": "saf",
        "businessshortcode": "174379",
    }
    assert str(row["source"]) == "127.0.0.1"


@pytest.mark.parametrize("size", [MIB + 1, 2 * MIB, 6 * MIB])
def test_a_body_above_a_mebibyte_is_refused_and_not_kept(
    shared: Gateway, new_phone: Phones, size: int
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    before = count_kept(shared)

    for where in (path, "/callback", "/callback/unknown"):
        assert_problem(post(shared, where, b"0" * size), 413, "body-too-large")
        assert_problem(post(shared, where, iter([b"0" * size])), 413, "body-too-large")

    assert kept(shared, transaction_id) == []
    assert count_kept(shared) == before


def unknown_tokens(good: str) -> dict[str, str]:
    return {
        "empty": "",
        "a word": "callback",
        "too short": good[:-1],
        "too long": good + "0",
        "no hexadecimal": "g" * 64,
        "other digits": "%D9%A1" * 64,
        "right id, wrong secret": good[:32] + "0" * 32,
        "right id, one bit off": good[:-1] + f"{int(good[-1], 16) ^ 1:x}",
        "unknown id": "0" * 32 + good[32:],
        "unknown id and secret": uuid.uuid4().hex + uuid.uuid4().hex,
        "swapped": good[32:] + good[:32],
        "id only": good[:32],
        "with hyphens": str(uuid.UUID(good[:32])) + good[32:],
        "two slashes": f"{good}//",
        "path below": f"{good}/x",
        "null byte": f"{good}%00",
        "newline": f"{good}%0A",
        "semicolon": f"{good};x=1",
        "space": f"%20{good}",
    }


@pytest.mark.parametrize("kind", list(unknown_tokens("0" * 64)))
def test_an_unknown_token_is_not_found_and_nothing_is_kept(
    shared: Gateway, new_phone: Phones, kind: str
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    token = unknown_tokens(path.removeprefix("/callback/"))[kind]
    before = count_kept(shared)

    response = post(shared, f"/callback/{token}", callback_body("ws_CO_1"))

    assert_problem(response, 404, "not-found")
    assert kept(shared, transaction_id) == []
    assert count_kept(shared) == before


def test_a_query_string_changes_nothing(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))

    assert_accepted(post(shared, f"{path}?order=7&x=%00&&=", b"1"))

    assert len(kept(shared, transaction_id)) == 1


@every_case("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD"])
@every_case("path", ["/callback", f"/callback/{'0' * 64}"])
def test_another_method_is_not_allowed(shared: Gateway, method: str, path: str) -> None:
    response = shared.session.request(method, shared.url + path, data=b"{}", timeout=10)

    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    if method != "HEAD":
        assert_problem(response, 405, "method-not-allowed")


def test_equal_bodies_are_one_row_that_counts_them(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    body = callback_body("ws_CO_1")
    for _ in range(5):
        assert_accepted(post(shared, path, body))
    with ThreadPoolExecutor(20) as threads:
        for response in threads.map(lambda _: post(shared, path, body), range(20)):
            assert_accepted(response)
    assert_accepted(post(shared, path, body + b" "))

    first, second = kept(shared, transaction_id)

    assert (first["copies"], second["copies"]) == (25, 1)
    assert first["last_received_at"] > first["received_at"]


def test_the_same_body_about_two_payments_is_two_rows(shared: Gateway, new_phone: Phones) -> None:
    (one, path_of_one), (two, path_of_two) = (
        paid_silently(shared, new_phone("4042")) for _ in range(2)
    )
    with ThreadPoolExecutor(8) as threads:
        paths = [path_of_one, path_of_two] * 4
        for response in threads.map(lambda path: post(shared, path, b"same"), paths):
            assert_accepted(response)

    assert [row["copies"] for row in kept(shared, one)] == [4]
    assert [row["copies"] for row in kept(shared, two)] == [4]


def test_many_callbacks_at_once_are_all_kept(
    shared: Gateway, new_phone: Phones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 200, on a machine of any speed: the time limit of an answer is another test's."""
    monkeypatch.setattr(inbox_module, "ACK_TIMEOUT_S", 20.0)
    monkeypatch.setattr(inbox_module, "LATE_S", 20.0)
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    bodies = [b"body %d" % number for number in range(200)]
    with ThreadPoolExecutor(40) as threads:
        for response in threads.map(lambda body: post(shared, path, body), bodies):
            assert_accepted(response)

    assert {bytes(row["body"]) for row in kept(shared, transaction_id)} == set(bodies)


def test_bad_neighbours_in_a_batch_harm_nobody_else(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    jobs = [(path, b"good %d" % n) for n in range(30)]
    jobs += [(f"/callback/{uuid.uuid4().hex}{uuid.uuid4().hex}", b"unknown") for _ in range(30)]
    jobs += [(path, b"0" * (MIB + 1)) for _ in range(3)]
    with ThreadPoolExecutor(21) as threads:
        answers = list(threads.map(lambda job: post(shared, *job).status_code, jobs))

    assert answers == [200] * 30 + [404] * 30 + [413] * 3
    assert len(kept(shared, transaction_id)) == 30


def test_neither_token_nor_id_is_logged(
    shared: Gateway, new_phone: Phones, caplog: pytest.LogCaptureFixture
) -> None:
    phone = new_phone("4042")
    transaction_id, path = paid_silently(shared, phone)
    checkout_request_id = shared.transaction(transaction_id)["checkout_request_id"]
    post(shared, path, callback_body(checkout_request_id))
    post(shared, f"{path}0", callback_body(checkout_request_id))
    shared.work()

    assert "callback applied" in caplog.text
    assert path.removeprefix("/callback/") not in caplog.text
    assert checkout_request_id not in caplog.text
    assert phone not in caplog.text


def test_a_sender_that_hangs_up_half_way_stops_nobody(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    for _ in range(20):
        with Wire(shared.url) as wire:
            wire.send(request_bytes("POST", path, body=b"half", length=1000))
        with Wire(shared.url) as wire:
            wire.send(request_bytes("POST", path, body=b"whole, answer not awaited"))

    assert_accepted(post(shared, path, b"next"))

    def bodies() -> set[bytes]:
        return {bytes(row["body"]) for row in kept(shared, transaction_id)}

    wait_for(lambda: {b"whole, answer not awaited", b"next"} <= bodies(), what="the callbacks")


@pytest.mark.parametrize(("required", "status"), [("true", "PENDING"), ("false", "COMPLETED")])
def test_the_plain_path_settles_only_where_no_token_is_required(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    required: str,
    status: str,
) -> None:
    with open_gateway(
        database_url, redis_url, simulator, receiver, callback_token_required=required
    ) as gateway:
        transaction_id, _ = paid_silently(gateway, "254712344042")
        checkout_request_id = gateway.transaction(transaction_id)["checkout_request_id"]

        assert_accepted(post(gateway, "/callback", callback_body(checkout_request_id)))
        gateway.work()

        assert gateway.transaction(transaction_id)["status"] == status
        (row,) = gateway.rows("SELECT * FROM callbacks")
        expected = ("APPLIED", "completed")
        if required == "true":
            expected = ("QUARANTINED", "token_required")
        assert (row["state"], row["outcome"]) == expected


def test_the_answer_is_json_that_safaricom_reads(shared: Gateway) -> None:
    assert json.loads(ACCEPTED) == {"ResultCode": 0, "ResultDesc": "Accepted"}
    assert_accepted(post(shared, "/callback"))

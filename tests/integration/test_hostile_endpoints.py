"""An endpoint with hostile answers: the worker lives, the attempt says what was answered."""

from __future__ import annotations

import itertools

import pytest

from harness.gateway import Gateway
from harness.hostile import BOMB_BYTES, RETRY_AFTERS, bomb, forget_peak, peak_bytes, raw
from harness.receiver import Answer
from mpesa_gateway.domain.delivery import PARK_AFTER_FAILURES

HEAD = (
    b"HTTP/1.1 302 Found\r\nLocation: /else\r\nConnection: close\r\nContent-Encoding: gzip\r\n\r\n"
)


def fail_payment(gateway: Gateway, number: int = 0) -> None:
    """A payment that ends at once, so that a webhook is due."""
    assert gateway.initiate(f"2547{number:04d}4000").status_code == 502


def test_a_compressed_redirect_is_a_redirect_and_costs_no_memory(gateway: Gateway) -> None:
    gateway.receiver.default = raw(lambda: itertools.chain([HEAD], itertools.repeat(bomb("gzip"))))
    fail_payment(gateway)
    before = forget_peak()
    gateway.work()

    assert peak_bytes() - before < BOMB_BYTES / 4
    (attempt,) = gateway.rows("SELECT * FROM webhook_attempts")
    assert (attempt["outcome"], attempt["response_status_code"]) == ("failed", 302)
    assert "302 redirect" in attempt["error_message"]
    (delivery,) = gateway.rows("SELECT * FROM deliveries")
    assert (delivery["state"], delivery["lease_until"]) == ("PENDING", None)
    assert 50 < (delivery["next_attempt_at"] - gateway.clock()).total_seconds() <= 60


def test_an_endpoint_of_hostile_answers_is_parked_like_any_other(gateway: Gateway) -> None:
    gateway.receiver.default = raw(lambda: [HEAD, b"no gzip at all"])
    for number in range(PARK_AFTER_FAILURES + 2):
        fail_payment(gateway, number)
    gateway.work()

    assert len(gateway.receiver.requests) == PARK_AFTER_FAILURES
    (row,) = gateway.rows("SELECT * FROM failing_endpoints")
    assert row["parked_until"] > gateway.clock()
    # When it answers as it should, all that waited goes out.
    gateway.receiver.default = Answer(200)
    gateway.clock.advance(minutes=5)
    gateway.sweep()
    gateway.clock.advance(minutes=5)
    gateway.sweep()
    assert {it["state"] for it in gateway.rows("SELECT state FROM deliveries")} == {"DELIVERED"}


@pytest.mark.parametrize("value", RETRY_AFTERS, ids=lambda it: repr(it[:40]))
def test_no_retry_after_takes_an_attempt_out_of_the_schedule(
    gateway: Gateway, value: bytes
) -> None:
    head = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nRetry-After: " + value + b"\r\n\r\n"
    gateway.receiver.default = raw(lambda: [head])
    fail_payment(gateway)
    gateway.work()

    (attempt,) = gateway.rows("SELECT * FROM webhook_attempts")
    assert (attempt["outcome"], attempt["response_status_code"]) == ("failed", 503)
    (delivery,) = gateway.rows("SELECT * FROM deliveries")
    wait_s = (delivery["next_attempt_at"] - gateway.clock()).total_seconds()
    assert 50 < wait_s <= 86_400


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found", b"500 No"])
def test_the_attempt_shows_what_was_answered(gateway: Gateway, status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n"
    gateway.receiver.default = raw(lambda: [head, b"No such order \xff\x00", b"x" * 100_000])
    transaction_id = gateway.initiate("254700004000").json()["transaction_id"]
    gateway.work()

    (item,) = gateway.get(f"/transactions/{transaction_id}/deliveries").json()["items"]
    (attempt,) = item["attempts"]
    assert attempt["response_body"].startswith("No such order \ufffd\ufffdxxx")
    assert len(attempt["response_body"].encode()) == 2048
    assert item["request_body"].encode() == gateway.receiver.requests[0].body

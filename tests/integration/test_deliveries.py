"""Webhooks: the schedule, what counts as taken, parked endpoints, dead workers, rotation."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from harness.clock import NOON
from harness.gateway import Gateway
from harness.receiver import Answer
from harness.settings import API_KEY
from mpesa_gateway.domain.delivery import PARK_AFTER_FAILURES
from mpesa_gateway.domain.signature import body_signature
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.usecases.deliveries import Deliveries
from mpesa_gateway.usecases.endpoint_limiter import Slot

REFUSED = "254712344000"  # fails at once, so that a webhook is due without any callback


def fail_payment(gateway: Gateway, number: int = 0) -> str:
    """A transaction that has just FAILED; its webhook is announced, and not sent yet."""
    response = gateway.initiate(f"2547{number:04d}4000")
    assert response.status_code == 502
    transaction_id: str = response.json()["transaction_id"]
    return transaction_id


def claim(deliveries: Deliveries, delivery_id: int) -> Any:
    """What a worker does before it sends; None when the delivery is not to be had."""
    return deliveries._claim(Slot(deliveries.limiter, delivery_id))


def delivery(gateway: Gateway, transaction_id: str) -> dict[str, Any]:
    (item,) = gateway.get(f"/transactions/{transaction_id}/deliveries").json()["items"]
    return dict(item)


def attempts(gateway: Gateway, transaction_id: str) -> list[tuple[int, str, int | None]]:
    """As the documented SQL shows them."""
    rows = gateway.rows(
        "SELECT attempt_number, success, response_status_code, response_time_ms, attempted_at,"
        " outcome FROM webhook_attempts WHERE transaction_id ="
        " (SELECT id FROM transactions WHERE internal_transaction_id = %s) ORDER BY attempt_number",
        uuid.UUID(transaction_id),
    )
    return [(it["attempt_number"], it["outcome"], it["response_status_code"]) for it in rows]


def test_an_endpoint_that_fails_is_tried_by_the_schedule_and_then_given_up(
    gateway: Gateway,
) -> None:
    gateway.receiver.default = Answer(500)
    transaction_id = fail_payment(gateway)
    gateway.work()
    waits = []
    while (item := delivery(gateway, transaction_id))["state"] == "PENDING":
        (due,) = gateway.rows("SELECT next_attempt_at FROM deliveries")
        wait = due["next_attempt_at"] - gateway.clock()
        waits.append(round(wait.total_seconds() / 60))
        gateway.clock.advance(seconds=wait.total_seconds() - 0.5)
        gateway.sweep()
        assert delivery(gateway, transaction_id)["attempts_made"] == len(waits)
        gateway.clock.advance(seconds=1)
        gateway.sweep()

    assert waits == [1, 5, 15, 60]
    assert item["state"] == "EXHAUSTED"
    assert attempts(gateway, transaction_id) == [(it, "failed", 500) for it in range(1, 6)]
    assert len({request.body for request in gateway.receiver.requests}) == 1
    assert len({request.webhook_id for request in gateway.receiver.requests}) == 1
    for request in gateway.receiver.requests:
        assert request.headers["x-signature"]


def test_an_exhausted_delivery_stays_and_can_be_sent_again(gateway: Gateway) -> None:
    gateway.receiver.default = Answer(500)
    transaction_id = fail_payment(gateway)
    for _ in range(6):
        gateway.work()
        gateway.clock.advance(hours=2)
        gateway.sweep()
    assert delivery(gateway, transaction_id)["state"] == "EXHAUSTED"
    gateway.receiver.default = Answer(200)
    path = f"{gateway.url}/transactions/{transaction_id}/redeliver"
    response = gateway.session.post(path, headers={"X-Internal-Secret": API_KEY}, timeout=10)
    assert response.status_code == 202
    gateway.work()

    item = delivery(gateway, transaction_id)
    assert item["state"] == "DELIVERED"
    assert [it["attempt_number"] for it in item["attempts"]] == [1, 2, 3, 4, 5, 6]
    assert len({request.body for request in gateway.receiver.requests}) == 1


def test_a_delivered_one_can_be_sent_again_too(gateway: Gateway) -> None:
    transaction_id = fail_payment(gateway)
    gateway.work()
    path = f"{gateway.url}/transactions/{transaction_id}/redeliver"
    gateway.session.post(path, headers={"X-Internal-Secret": API_KEY}, timeout=10)
    gateway.work()

    assert attempts(gateway, transaction_id) == [(1, "delivered", 200), (2, "delivered", 200)]
    first, second = gateway.receiver.requests
    assert (first.webhook_id, first.body) == (second.webhook_id, second.body)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_taken(gateway: Gateway, status: int) -> None:
    gateway.receiver.default = Answer(status)
    transaction_id = fail_payment(gateway)
    gateway.work()

    assert delivery(gateway, transaction_id)["state"] == "DELIVERED"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(gateway: Gateway, status: int) -> None:
    headers = {"Location": f"{gateway.receiver.url}/elsewhere"}
    gateway.receiver.default = Answer(status, headers)
    transaction_id = fail_payment(gateway)
    gateway.work()

    assert attempts(gateway, transaction_id) == [(1, "failed", status)]
    assert [request.path for request in gateway.receiver.requests] == ["/hook"]


def test_410_ends_it(gateway: Gateway) -> None:
    gateway.receiver.default = Answer(410)
    transaction_id = fail_payment(gateway)
    gateway.work()

    item = delivery(gateway, transaction_id)
    assert item["state"] == "GONE"
    assert item["next_attempt_at"] is None


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_lengthens_the_wait(gateway: Gateway, form: str) -> None:
    at = gateway.clock() + timedelta(minutes=10)
    value = "600" if form == "seconds" else format_datetime(at, usegmt=True)
    gateway.receiver.default = Answer(429, {"Retry-After": value})
    fail_payment(gateway)
    gateway.work()

    (row,) = gateway.rows("SELECT next_attempt_at FROM deliveries")
    wait = row["next_attempt_at"] - gateway.clock()
    assert timedelta(minutes=9.9) < wait <= timedelta(minutes=10)


def test_a_retry_after_never_shortens_the_wait_and_nonsense_is_passed_over(
    gateway: Gateway,
) -> None:
    for value in ("1", "soon", "-5", "Wed, 99 Foo 2026 99:99:99 GMT"):
        gateway.receiver.answers = [Answer(503, {"Retry-After": value})]
        transaction_id = fail_payment(gateway, len(gateway.receiver.requests))
        gateway.work()
        (row,) = gateway.rows(
            "SELECT next_attempt_at FROM deliveries d JOIN transactions t"
            " ON t.id = d.transaction_id WHERE t.internal_transaction_id = %s",
            uuid.UUID(transaction_id),
        )
        wait = row["next_attempt_at"] - gateway.clock()
        assert timedelta(seconds=58) < wait <= timedelta(seconds=60), value


def test_a_worker_that_dies_in_the_middle_leaves_its_try_and_the_next_one_is_equal(
    gateway: Gateway,
) -> None:
    transaction_id = fail_payment(gateway)
    (work,) = gateway.notifier.take()
    assert claim(gateway.services.deliveries, work.id) is not None  # and then it dies
    assert attempts(gateway, transaction_id) == [(1, "started", None)]
    gateway.clock.advance(seconds=14)
    gateway.sweep()
    assert gateway.receiver.requests == []
    gateway.clock.advance(seconds=2)
    gateway.sweep()

    assert attempts(gateway, transaction_id) == [(1, "unknown", None), (2, "delivered", 200)]
    item = delivery(gateway, transaction_id)
    assert item["state"] == "DELIVERED"
    assert "may have seen it" in item["attempts"][0]["error_message"]


def test_a_delivery_that_kills_every_worker_ends(gateway: Gateway) -> None:
    transaction_id = fail_payment(gateway)
    (work,) = gateway.notifier.take()
    for _ in range(7):
        claim(gateway.services.deliveries, work.id)
        gateway.clock.advance(seconds=16)

    item = delivery(gateway, transaction_id)
    assert item["state"] == "EXHAUSTED"
    assert item["attempts_made"] == 5


def test_a_worker_whose_lease_ran_out_cannot_end_the_delivery(gateway: Gateway) -> None:
    transaction_id = fail_payment(gateway)
    (work,) = gateway.notifier.take()
    sending = gateway.services.deliveries
    paused = claim(sending, work.id)
    assert paused is not None
    gateway.clock.advance(seconds=16)
    gateway.receiver.default = Answer(500)
    gateway.sweep()
    body = paused.delivery.body
    attempt = sending.webhooks.post(gateway.receiver.url, body, {}, gateway.clock())
    sending._finish(paused, replace(attempt, response_status_code=200))

    assert delivery(gateway, transaction_id)["state"] == "PENDING"
    assert [outcome for _, outcome, _ in attempts(gateway, transaction_id)] == [
        "unknown",
        "failed",
    ]


def test_a_delivery_that_another_worker_claims_meanwhile_is_left_to_it(gateway: Gateway) -> None:
    transaction_id = fail_payment(gateway)
    (work,) = gateway.notifier.take()
    ours = gateway.services.deliveries

    def claimed_by_another() -> Snapshot:
        gateway.execute(
            "UPDATE deliveries SET claim = claim + 1, lease_until = %s",
            gateway.clock() + timedelta(seconds=15),
        )
        return gateway.services.merchants.current()

    assert replace(ours, merchants=claimed_by_another).attempt(work.id) == []
    assert gateway.receiver.requests == []
    assert attempts(gateway, transaction_id) == []
    assert ours.limiter._running == {}
    gateway.clock.advance(seconds=16)
    gateway.sweep()
    assert delivery(gateway, transaction_id)["state"] == "DELIVERED"


def test_a_claim_between_the_look_and_ours_fences_it_off(gateway: Gateway) -> None:
    """Also where the other has ended its try meanwhile: the number says so, not the lease."""
    transaction_id = fail_payment(gateway)
    (work,) = gateway.notifier.take()

    def tried_by_another() -> Snapshot:
        gateway.execute("UPDATE deliveries SET claim = claim + 1, attempts_made = 1, failures = 1")
        return gateway.services.merchants.current()

    ours = replace(gateway.services.deliveries, merchants=tried_by_another)
    assert ours.attempt(work.id) == []
    assert (gateway.receiver.requests, attempts(gateway, transaction_id)) == ([], [])


def test_an_endpoint_that_keeps_failing_is_parked_and_nothing_is_dropped(gateway: Gateway) -> None:
    gateway.receiver.default = Answer(500)
    transactions = [fail_payment(gateway, number) for number in range(PARK_AFTER_FAILURES + 5)]
    gateway.work()
    assert len(gateway.receiver.requests) == PARK_AFTER_FAILURES
    states = [delivery(gateway, transaction_id) for transaction_id in transactions]
    assert [item["parked"] for item in states].count(True) == 5
    assert {item["state"] for item in states} == {"PENDING"}

    # The pause is over: one try feels whether it is back, and all go when it is.
    gateway.receiver.default = Answer(200)
    gateway.clock.advance(seconds=31)
    gateway.sweep()
    assert len(gateway.receiver.requests) == PARK_AFTER_FAILURES + 5
    gateway.clock.advance(minutes=2)
    gateway.sweep()

    assert {delivery(gateway, it)["state"] for it in transactions} == {"DELIVERED"}
    assert gateway.rows("SELECT * FROM failing_endpoints") == []


def test_a_parked_endpoint_that_still_fails_is_left_alone_for_longer(gateway: Gateway) -> None:
    # Pauses are compared to the second: no time may pass by itself between a try and the look.
    gateway.clock.stop_at(NOON)
    gateway.receiver.default = Answer(500)
    for number in range(PARK_AFTER_FAILURES + 3):
        fail_payment(gateway, number)
    gateway.work()
    pauses = []
    for _ in range(4):
        (row,) = gateway.rows("SELECT parked_until FROM failing_endpoints")
        pause = row["parked_until"] - gateway.clock()
        pauses.append(pause.total_seconds())
        seen = len(gateway.receiver.requests)
        # A little more: the sweeper leaves what came due just now to its wake-up.
        gateway.clock.advance(seconds=pause.total_seconds() + 0.5)
        gateway.sweep()
        assert len(gateway.receiver.requests) == seen + 1

    assert pauses == [30, 60, 120, 240]


def test_another_endpoint_is_not_held_up_by_a_parked_one(gateway: Gateway) -> None:
    gateway.receiver.default = Answer(500)
    for number in range(PARK_AFTER_FAILURES + 1):
        fail_payment(gateway, number)
    gateway.work()
    gateway.receiver.default = Answer(200)
    other = gateway.receiver.url.replace("127.0.0.1", "localhost")
    response = gateway.initiate("254799994000", webhook_url=other)
    gateway.work()

    assert delivery(gateway, response.json()["transaction_id"])["state"] == "DELIVERED"


def test_both_secrets_sign_while_one_is_replaced(gateway: Gateway) -> None:
    old, new = API_KEY, "whsec_bmV3IHNlY3JldCBvZiBhIG1lcmNoYW50"
    deliveries = with_secrets(gateway, new, old)
    fail_payment(gateway)
    (work,) = gateway.notifier.take()
    deliveries.attempt(work.id)

    (request,) = gateway.receiver.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    told = request.verify(new)
    assert told["status"] == "FAILED"
    with pytest.raises(AssertionError):
        request.verify(old)  # X-Signature is the newest secret's
    headers = {**request.headers, "x-signature": body_signature(old, request.body)}
    replace(request, headers=headers).verify(old)  # the triple holds for both


def with_secrets(gateway: Gateway, *secrets: str) -> Deliveries:
    """The deliveries of a gateway whose merchant has these secrets, newest first."""
    default = gateway.services.merchants.current().by_name["default"]
    snapshot = Snapshot({"default": replace(default, webhook_secrets=secrets)})
    return replace(gateway.services.deliveries, merchants=lambda: snapshot)


def test_nobody_signs_for_a_merchant_that_is_away_and_nothing_is_dropped(gateway: Gateway) -> None:
    transaction_id = fail_payment(gateway)
    (work,) = gateway.notifier.take()
    deliveries = replace(gateway.services.deliveries, merchants=Snapshot)
    assert deliveries.attempt(work.id) == []
    item = delivery(gateway, transaction_id)
    assert (item["state"], item["attempts_made"]) == ("PENDING", 0)
    gateway.clock.advance(seconds=61)
    gateway.sweep()

    assert delivery(gateway, transaction_id)["state"] == "DELIVERED"


def test_the_webhook_says_what_the_contract_promises(gateway: Gateway) -> None:
    response = gateway.initiate(REFUSED, amount="15", account_reference="INV-1")
    gateway.work()

    (request,) = gateway.receiver.requests
    body = json.loads(request.body)
    assert list(body) == [
        "type",
        "transaction_id",
        "merchant",
        "status",
        "amount",
        "phone",
        "account_reference",
        "order_id",
        "custom_data",
        "metadata",
        "result",
        "timestamp",
        "failure",
    ]
    assert body["transaction_id"] == response.json()["transaction_id"]
    assert body["merchant"] == "default"
    assert body["amount"] == "15"
    assert body["phone"] == REFUSED
    assert body["account_reference"] == "INV-1"
    assert body["failure"] == {"code": "400.002.02", "reason": "refused"}
    assert request.headers["content-type"] == "application/json"

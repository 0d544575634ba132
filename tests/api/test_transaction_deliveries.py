"""GET /transactions/{id}/deliveries, POST /transactions/{id}/redeliver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from harness.gateway import Gateway
from harness.problems import assert_problem
from harness.receiver import Answer
from harness.settings import API_KEY
from harness.transactions import ended

Phones = Callable[[str], str]
DELIVERY = {
    *("id", "transaction_id", "type", "state", "url", "attempts_made", "next_attempt_at"),
    *("parked", "created_at", "finished_at"),
}
# As the columns of webhook_attempts.
ATTEMPT = {
    *("attempt_number", "outcome", "success", "response_status_code", "response_time_ms"),
    *("error_message", "response_body", "attempted_at"),
}


def redeliver(gateway: Gateway, transaction_id: object, **options: Any) -> requests.Response:
    return gateway.session.post(
        f"{gateway.url}/transactions/{transaction_id}/redeliver",
        headers={"X-Internal-Secret": API_KEY},
        timeout=10,
        **options,
    )


def test_a_transaction_that_goes_on_has_no_deliveries(shared: Gateway, new_phone: Phones) -> None:
    transaction_id = shared.pay(new_phone("4042"))

    response = shared.get(f"/transactions/{transaction_id}/deliveries")

    assert response.json() == {"items": []}
    assert_problem(redeliver(shared, transaction_id), 409, "nothing-to-deliver")


def test_a_delivery_shows_every_attempt(gateway: Gateway, new_phone: Phones) -> None:
    gateway.receiver.answers.append(Answer(500))
    transaction_id = ended(gateway, new_phone("0000"))
    gateway.clock.advance(minutes=2)
    gateway.sweep()

    response = gateway.get(f"/transactions/{transaction_id}/deliveries")

    (delivery,) = response.json()["items"]
    assert set(delivery) == DELIVERY | {"attempts", "request_body"}
    assert delivery["transaction_id"] == transaction_id
    assert delivery["type"] == "transaction.completed"
    assert delivery["state"] == "DELIVERED"
    assert delivery["url"] == gateway.receiver.url
    assert delivery["attempts_made"] == 2
    first, second = delivery["attempts"]
    assert set(first) == set(second) == ATTEMPT
    assert (first["attempt_number"], second["attempt_number"]) == (1, 2)
    assert (first["success"], second["success"]) == (False, True)
    assert (first["response_status_code"], second["response_status_code"]) == (500, 200)
    assert (first["outcome"], second["outcome"]) == ("failed", "delivered")
    assert first["response_time_ms"] >= 0
    assert first["attempted_at"] < second["attempted_at"]
    assert [request.webhook_id for request in gateway.receiver.requests] == [delivery["id"]] * 2
    # The columns are what the specification's SELECT expects.
    rows = gateway.rows(
        "SELECT attempt_number, success, response_status_code, response_time_ms, attempted_at"
        " FROM webhook_attempts WHERE transaction_id = (SELECT id FROM transactions"
        " WHERE internal_transaction_id = %s) ORDER BY attempt_number",
        transaction_id,
    )
    assert [row["attempt_number"] for row in rows] == [1, 2]


@pytest.mark.parametrize(
    "options",
    [{}, {"data": b"not json"}, {"json": {"x": 1}}, {"data": iter([b"x"])}],
    ids=["empty", "text", "json", "chunked"],
)
def test_a_delivered_webhook_may_be_sent_again_whatever_the_request_says(
    shared: Gateway, new_phone: Phones, options: dict[str, Any]
) -> None:
    transaction_id = ended(shared, new_phone("0000"))
    assert len(shared.receiver.of(transaction_id)) == 1

    response = redeliver(shared, transaction_id, **options)

    assert response.status_code == 202
    (delivery,) = response.json()["items"]
    assert set(delivery) == DELIVERY
    assert delivery["state"] == "PENDING"
    shared.work()
    first, second = shared.receiver.of(transaction_id)
    assert (first.webhook_id, first.body) == (second.webhook_id, second.body)
    (delivery,) = shared.get(f"/transactions/{transaction_id}/deliveries").json()["items"]
    assert [attempt["attempt_number"] for attempt in delivery["attempts"]] == [1, 2]
    assert delivery["state"] == "DELIVERED"


def test_asking_twice_before_it_is_sent_sends_it_once(shared: Gateway, new_phone: Phones) -> None:
    transaction_id = ended(shared, new_phone("1032"))
    for _ in range(3):
        assert redeliver(shared, transaction_id).status_code == 202

    shared.work()

    assert len(shared.receiver.of(transaction_id)) == 2


def test_a_redelivery_with_a_large_body_is_refused(shared: Gateway, new_phone: Phones) -> None:
    transaction_id = ended(shared, new_phone("0000"))

    response = redeliver(shared, transaction_id, data=b"x" * 70_000)

    assert_problem(response, 413, "body-too-large")
    shared.work()
    assert len(shared.receiver.of(transaction_id)) == 1

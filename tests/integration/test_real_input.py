"""Every recorded body of `tests/data`, sent as Safaricom sends it, over HTTP to the running API."""

from __future__ import annotations

from typing import Any

import pytest

from harness import data
from harness.gateway import Gateway
from harness.receiver import Answer

CHECKOUT = "ws_CO_021020261805069708374149"
PHONE = "254708374149"

STATUS_OF = {
    "completed": "COMPLETED",
    "failed": "FAILED",
    "held": "PENDING",
    "quarantined": "PENDING",
}
STATE_OF = {
    "completed": "APPLIED",
    "failed": "APPLIED",
    "held": "HELD",
    "quarantined": "QUARANTINED",
}
CALLBACKS = data.load_callbacks()
PUSHES = data.load_push()
QUERIES = data.load_query()
TOKENS = data.load_oauth()


@pytest.fixture
def gateway(kept_gateway: Gateway) -> Gateway:
    return kept_gateway


def names(records: list[Any]) -> list[str]:
    return [record.file.partition(".")[0] for record in records]


def pay(gateway: Gateway) -> str:
    """A pending transaction of KES 10 with the id that the bodies name."""
    gateway.next_push(outcome="no_callback_unknown", CheckoutRequestID=CHECKOUT)
    return gateway.pay(PHONE)


@pytest.mark.parametrize("recorded", CALLBACKS, ids=names(CALLBACKS))
def test_a_callback_is_kept_and_does_what_it_should(
    gateway: Gateway, recorded: data.Callback
) -> None:
    transaction_id = pay(gateway)
    response = gateway.post(
        gateway.callback_path(PHONE), recorded.body, **{"Content-Type": recorded.content_type}
    )
    assert response.status_code == 200
    assert response.json() == {"ResultCode": 0, "ResultDesc": "Accepted"}
    for work in gateway.notifier.take():
        gateway.dispatcher.run(work)

    (row,) = gateway.rows("SELECT body, state, outcome FROM callbacks")
    assert row["body"] == recorded.body, "byte for byte"
    assert (row["state"], row["outcome"]) == (STATE_OF[recorded.effect], recorded.outcome)
    view = gateway.transaction(transaction_id)
    assert view["status"] == STATUS_OF[recorded.effect]
    if recorded.effect in ("completed", "failed"):
        assert view["result"]["code"] == recorded.code
    deliveries = gateway.get(f"/transactions/{transaction_id}/deliveries").json()["items"]
    assert [it["type"] for it in deliveries] == (
        [f"transaction.{recorded.effect}"] if recorded.effect in ("completed", "failed") else []
    )


PUSH_ANSWERS = {
    "ACCEPTED": (201, "PENDING", "ACCEPTED"),
    "UNKNOWN": (201, "PENDING", "UNKNOWN"),
    "REFUSED": (502, "FAILED", "REFUSED"),
    "NOT_SENT": (503, "FAILED", "NOT_SENT"),
}


@pytest.mark.parametrize("recorded", PUSHES, ids=names(PUSHES))
def test_an_answer_to_a_push_ends_as_its_class_says(
    gateway: Gateway, recorded: data.Answer
) -> None:
    gateway.next_push(
        outcome="no_callback_unknown",
        answer={
            "status": recorded.status,
            "body": recorded.body.decode(errors="surrogateescape"),
            "content_type": recorded.content_type,
        },
    )
    response = gateway.initiate(PHONE)

    if recorded.expected == "TOKEN_REJECTED":
        # One fresh token, and the push again: the simulator accepts that one.
        assert response.status_code == 201
        assert len(gateway.simulator.ledger()["pushes"]) == 2
        assert len(gateway.simulator.ledger()["tokens"]) == 2
        return
    assert len(gateway.simulator.ledger()["pushes"]) == 1, "never sent again"
    status, state, push = PUSH_ANSWERS[recorded.expected]
    assert response.status_code == status, response.text
    view = gateway.transaction(response.json()["transaction_id"])
    assert (view["status"], view["push"]) == (state, push)
    assert view["checkout_request_id"] == recorded.checkout_request_id
    if state == "FAILED":
        assert view["failure"] == {"code": recorded.code, "reason": recorded.reason}
        assert response.json()["reason"] == recorded.reason


@pytest.mark.parametrize("recorded", QUERIES, ids=names(QUERIES))
def test_an_answer_to_a_query_is_believed_as_its_class_says(
    gateway: Gateway, recorded: data.Answer
) -> None:
    transaction_id = pay(gateway)
    gateway.next_query(
        status=recorded.status,
        body=recorded.body.decode(errors="surrogateescape"),
        content_type=recorded.content_type,
    )
    # The prompt's life is over: until then, a success would have to be repeated.
    gateway.clock.advance(seconds=91)
    gateway.sweep()

    view = gateway.transaction(transaction_id)
    assert view["status"] == ("COMPLETED" if recorded.expected == "PAID" else "PENDING")
    (row,) = gateway.rows("SELECT provisional_code, queries_made FROM transactions")
    failed = recorded.expected == "FAILED"
    assert row["provisional_code"] == (recorded.code if failed else None)
    kinds = gateway.rows("SELECT kind FROM transaction_events WHERE source = 'query'")
    # A refused token is renewed, and the simulator's own answer to the second query counts.
    again = recorded.expected == "TOKEN_REJECTED"
    said = "no_information" if again else recorded.expected.lower()
    assert kinds[0]["kind"] == f"said_{said}"
    assert len(gateway.simulator.ledger()["queries"]) == (2 if again else 1)


@pytest.mark.parametrize("recorded", TOKENS, ids=names(TOKENS))
def test_an_answer_of_oauth_decides_about_the_payment(
    gateway: Gateway, recorded: data.Answer
) -> None:
    headers = {"Content-Type": recorded.content_type}
    gateway.receiver.default = Answer(recorded.status, headers, recorded.body)
    base_url = gateway.receiver.url.removesuffix("/hook")
    answer = gateway.services.payments.daraja.fetch_token(base_url, "key", "secret")

    if recorded.expected == "TOKEN":
        assert answer.token == recorded.token
        assert answer.expires_in_s == recorded.expires_in_s
    else:
        assert answer.token is None
        assert answer.refused is (recorded.expected == "REFUSED")

"""Callbacks that contradict what is known, or prove nothing."""

from __future__ import annotations

import json

import pytest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.receiver import Answer
from harness.settings import API_KEY
from harness.settling import SILENT, outcomes, settle, types_told


def test_a_success_after_a_failure_is_a_conflict_that_the_merchant_hears_of(
    gateway: Gateway,
) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout, code=1032))
    settle(gateway, callback_body(checkout))

    view = gateway.transaction(transaction_id)
    assert view["status"] == "FAILED"
    assert view["receipt"] is None
    assert [(it["kind"], it["receipt"]) for it in view["conflicts"]] == [
        ("paid_after_failed", "UJ22T8IYOU")
    ]
    assert types_told(gateway) == ["transaction.failed", "transaction.conflict"]
    told = gateway.receiver.requests[-1].verify(API_KEY)
    assert told["status"] == "FAILED"
    assert told["conflict"]["receipt"] == "UJ22T8IYOU"
    assert told["metadata"]["MpesaReceiptNumber"] == "UJ22T8IYOU"


def test_a_failure_after_a_success_moves_nothing_and_the_merchant_is_told(
    gateway: Gateway,
) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout))
    settle(gateway, callback_body(checkout, code=1032))

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert [it["kind"] for it in view["conflicts"]] == ["failed_after_completed"]
    assert types_told(gateway) == ["transaction.completed", "transaction.conflict"]
    told = gateway.receiver.requests[-1].verify(API_KEY)
    assert told["status"] == "COMPLETED"
    assert told["conflict"] == {
        "kind": "failed_after_completed",
        "receipt": None,
        "result_code": "1032",
        "metadata": view["metadata"],
    }
    assert told["metadata"] == view["metadata"], "what was paid stays as it was told"
    assert told["result"] == view["result"]


def test_a_second_receipt_is_a_conflict_once(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout))
    settle(gateway, callback_body(checkout, receipt="UJ22T8IYOV"))
    settle(gateway, callback_body(checkout, receipt="UJ22T8IYOV", amount="10.0"))

    view = gateway.transaction(transaction_id)
    assert view["receipt"] == "UJ22T8IYOU"
    assert [it["kind"] for it in view["conflicts"]] == ["second_receipt"]
    assert types_told(gateway) == ["transaction.completed", "transaction.conflict"]


@pytest.mark.parametrize("missing", ["amount", "receipt"])
def test_an_unproven_success_is_asked_about_before_it_counts(
    gateway: Gateway, missing: str
) -> None:
    phone = "254712344040"  # no callback of its own, and the query says paid
    transaction_id = gateway.pay(phone)
    body = callback_body(gateway.checkout_request_id(phone), **{missing: None})
    gateway.post(gateway.callback_path(phone), body)
    (callback, *_) = gateway.notifier.take()
    gateway.dispatcher.run(callback)
    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    assert outcomes(gateway) == [("HELD", "confirming")]
    gateway.work()

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert view["settled_by"] == "query"
    assert view["receipt"] == (None if missing == "receipt" else "UJ22T8IYOU")
    assert outcomes(gateway) == [("APPLIED", "completed")]
    assert types_told(gateway) == ["transaction.completed"]


def test_a_failure_after_an_unproven_success_asks_for_a_person(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout, amount=None))
    settle(gateway, callback_body(checkout, code=1032))

    view = gateway.transaction(transaction_id)
    assert view["status"] == "PENDING"
    assert "later as failed" in view["attention"]
    assert outcomes(gateway) == [("HELD", "confirming"), ("QUARANTINED", "contradicts_itself")]


def test_a_callback_that_comes_late_fills_in_what_a_query_could_not_tell(gateway: Gateway) -> None:
    phone = "254712344040"
    transaction_id = gateway.pay(phone)
    gateway.clock.advance(minutes=2)
    gateway.sweep()
    assert gateway.transaction(transaction_id)["receipt"] is None
    settle(
        gateway,
        callback_body(gateway.checkout_request_id(phone)),
        path=gateway.callback_path(phone),
    )

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert view["receipt"] == "UJ22T8IYOU"
    assert view["metadata"]["MpesaReceiptNumber"] == "UJ22T8IYOU"
    assert types_told(gateway) == ["transaction.completed", "transaction.updated"]
    first, second = (json.loads(request.body) for request in gateway.receiver.requests)
    assert first["metadata"] is None
    assert second["metadata"]["MpesaReceiptNumber"] == "UJ22T8IYOU"


def test_an_unproven_success_does_not_start_the_queries_of_a_doubted_payment(
    gateway: Gateway,
) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout, amount=11))
    settle(gateway, callback_body(checkout, amount=None))

    assert gateway.simulator.ledger()["queries"] == []
    assert gateway.transaction(transaction_id)["status"] == "PENDING"


def test_a_later_webhook_does_not_overtake_an_earlier_one(gateway: Gateway) -> None:
    gateway.receiver.answers = [Answer(500)]
    gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout, code=1032))
    settle(gateway, callback_body(checkout))
    assert types_told(gateway) == ["transaction.failed"]
    gateway.sweep()
    assert types_told(gateway) == ["transaction.failed"]
    gateway.clock.advance(seconds=61)
    gateway.sweep()

    assert types_told(gateway) == [
        "transaction.failed",
        "transaction.failed",
        "transaction.conflict",
    ]

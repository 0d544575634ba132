"""What each callback does to its transaction, over the real API and the real database."""

from __future__ import annotations

import json
import threading

import pytest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.receiver import Answer
from harness.settings import API_KEY
from mpesa_gateway.domain.work import Work, WorkKind

# The simulator never calls this phone's payments back, and knows nothing when asked.
SILENT = "254712344042"


def settle(gateway: Gateway, body: bytes, *, path: str | None = None) -> None:
    """Post a callback for the silent phone's last push, and do the work."""
    response = gateway.post(path or gateway.callback_path(SILENT), body)
    assert response.status_code == 200, response.text
    gateway.work()


def types_told(gateway: Gateway) -> list[str]:
    return [json.loads(request.body)["type"] for request in gateway.receiver.requests]


def outcomes(gateway: Gateway) -> list[tuple[str, str | None]]:
    rows = gateway.rows("SELECT state, outcome FROM callbacks ORDER BY id")
    return [(row["state"], row["outcome"]) for row in rows]


def kinds(gateway: Gateway) -> list[str]:
    rows = gateway.rows("SELECT source || ' ' || kind AS kind FROM transaction_events ORDER BY id")
    return [row["kind"] for row in rows]


def test_a_failure_ends_failed_with_its_reason_told(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(SILENT), code=1032))

    view = gateway.transaction(transaction_id)
    assert view["status"] == "FAILED"
    assert view["failure"] == {"code": "1032", "reason": "cancelled"}
    assert view["result"]["cause"] == "customer"
    assert view["result"]["customer_may_retry"] is True
    (webhook,) = gateway.receiver.requests
    told = webhook.verify(API_KEY)
    assert told["type"] == "transaction.failed"
    assert told["failure"] == {"code": "1032", "reason": "cancelled"}
    assert told["metadata"] is None


def test_the_same_callback_twice_changes_nothing_the_second_time(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    body = callback_body(gateway.checkout_request_id(SILENT))
    settle(gateway, body)
    settle(gateway, body)

    assert gateway.transaction(transaction_id)["status"] == "COMPLETED"
    assert types_told(gateway) == ["transaction.completed"]
    (row,) = gateway.rows("SELECT copies, state FROM callbacks")
    assert row == {"copies": 2, "state": "APPLIED"}


def test_a_second_success_written_differently_is_a_duplicate(gateway: Gateway) -> None:
    gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout))
    settle(gateway, callback_body(checkout, amount="10.00"))

    assert outcomes(gateway) == [("APPLIED", "completed"), ("APPLIED", "duplicate")]
    assert types_told(gateway) == ["transaction.completed"]


def test_another_amount_is_quarantined_and_asks_for_a_person(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(SILENT), amount=11))

    view = gateway.transaction(transaction_id)
    assert view["status"] == "PENDING"
    assert "another amount" in view["attention"]
    assert view["next_step"] == {"action": "person", "at": None}
    assert outcomes(gateway) == [("QUARANTINED", "amount_mismatch")]
    assert gateway.receiver.requests == []


def test_no_query_completes_what_a_wrong_amount_put_in_doubt(gateway: Gateway) -> None:
    transaction_id = gateway.pay("254712347001")  # the callback says one shilling more
    gateway.simulator.wait_until_idle()
    gateway.work()
    gateway.clock.advance(hours=2)
    gateway.sweep()

    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    assert gateway.simulator.ledger()["queries"] == []


def test_anothers_checkout_request_id_is_quarantined(gateway: Gateway) -> None:
    other = "254799994042"
    gateway.pay(other)
    transaction_id = gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(other)))

    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    assert outcomes(gateway) == [("QUARANTINED", "checkout_request_id_mismatch")]


def test_a_token_cannot_settle_with_an_id_that_another_transaction_has(gateway: Gateway) -> None:
    """The push's own id was never learned, so only the uniqueness of ids protects the other."""
    gateway.pay(SILENT)
    unanswered = "254712345040"  # accepted, then the connection is cut: no id is learned
    transaction_id = gateway.pay(unanswered)
    gateway.simulator.wait_until_idle()
    gateway.bell.take()
    path = gateway.callback_path(unanswered)
    stolen = callback_body(gateway.checkout_request_id(SILENT))
    gateway.execute("DELETE FROM callbacks WHERE state = 'RECEIVED'")
    settle(gateway, stolen, path=path)

    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    assert outcomes(gateway) == [("QUARANTINED", "checkout_request_id_mismatch")]


def test_a_receipt_of_another_transaction_is_quarantined(gateway: Gateway) -> None:
    other = "254799994042"
    first = gateway.pay(other)
    settle(
        gateway,
        callback_body(gateway.checkout_request_id(other)),
        path=gateway.callback_path(other),
    )
    second = gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(SILENT)))

    assert gateway.transaction(first)["status"] == "COMPLETED"
    view = gateway.transaction(second)
    assert view["status"] == "PENDING"
    assert "receipt" in view["attention"]
    assert outcomes(gateway)[1] == ("QUARANTINED", "receipt_reused")


def test_one_receipt_for_two_transactions_at_once_completes_one(gateway: Gateway) -> None:
    other = "254799994042"
    gateway.pay(other)
    gateway.pay(SILENT)
    for phone in (other, SILENT):
        body = callback_body(gateway.checkout_request_id(phone))
        assert gateway.post(gateway.callback_path(phone), body).status_code == 200
    work = gateway.bell.take()
    threads = [threading.Thread(target=gateway.tasks.do, args=[it]) for it in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes(gateway)) == [
        ("APPLIED", "completed"),
        ("QUARANTINED", "receipt_reused"),
    ]


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


def test_a_failure_after_a_success_is_recorded_and_moves_nothing(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout))
    settle(gateway, callback_body(checkout, code=1032))

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert [it["kind"] for it in view["conflicts"]] == ["failed_after_completed"]
    assert types_told(gateway) == ["transaction.completed"]


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
    (callback, *_) = gateway.bell.take()
    gateway.tasks.do(callback)
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


def test_the_documented_curl_completes_its_transaction(gateway: Gateway) -> None:
    """Typed by hand against a running gateway: the body of the project's first issue."""
    gateway.next_push(CheckoutRequestID="ws_CO_11012024135500")
    transaction_id = gateway.pay(SILENT)
    body = (
        b'{"Body":{"stkCallback":{"MerchantRequestID":"29115-34620561-1","CheckoutRequestID":'
        b'"ws_CO_11012024135500","ResultCode":0,"ResultDesc":"ok","CallbackMetadata":{"Item":['
        b'{"Name":"Amount","Value":10},{"Name":"MpesaReceiptNumber","Value":"OEI2AK3ZQO"},'
        b'{"Name":"TransactionDate","Value":20240111135500},'
        b'{"Name":"PhoneNumber","Value":254712345678}]}}}}'
    )
    settle(gateway, body, path="/callback")

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert view["receipt"] == "OEI2AK3ZQO"
    assert view["metadata"] == {
        "Amount": 10,
        "MpesaReceiptNumber": "OEI2AK3ZQO",
        "TransactionDate": 20240111135500,
        "PhoneNumber": 254712345678,
    }


def test_an_unreadable_body_is_kept_in_quarantine(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    settle(gateway, b"\xff{not json")

    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    (row,) = gateway.rows("SELECT body, state, outcome FROM callbacks")
    assert row == {"body": b"\xff{not json", "state": "QUARANTINED", "outcome": "unreadable"}


def test_an_unrecognised_code_fails_and_says_so(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(SILENT), code=7777))

    result = gateway.transaction(transaction_id)["result"]
    assert result["code"] == "7777"
    assert result["recognised"] is False
    assert gateway.transaction(transaction_id)["failure"]["reason"] == "unrecognised"


def test_still_processing_in_a_callback_ends_nothing(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(SILENT), code=4999))

    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    assert outcomes(gateway) == [("QUARANTINED", "not_final")]


def test_every_step_is_an_event_that_names_who_said_it(gateway: Gateway) -> None:
    gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(SILENT)))

    assert kinds(gateway) == ["caller requested", "push accepted", "callback completed"]


def test_a_callback_that_our_code_fails_on_is_put_aside_in_the_end(gateway: Gateway) -> None:
    """A row that makes us fail: its transaction claims that nothing was sent, and a paid one."""
    transaction_id = gateway.pay(SILENT)
    path, checkout = gateway.callback_path(SILENT), gateway.checkout_request_id(SILENT)
    gateway.execute("UPDATE transactions SET push_state = 'NOT_SENT'")
    settle(gateway, callback_body(checkout), path=path)
    for _ in range(10):
        gateway.clock.advance(seconds=6)
        gateway.sweep()

    assert outcomes(gateway) == [("QUARANTINED", "processing_failed")]
    assert gateway.transaction(transaction_id)["status"] == "PENDING"


def test_work_that_is_not_there_is_passed_over(gateway: Gateway) -> None:
    for kind in WorkKind:
        gateway.tasks.do(Work(kind, 999_999))

    assert gateway.bell.take() == []


def test_an_unproven_success_does_not_start_the_queries_of_a_doubted_payment(
    gateway: Gateway,
) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout, amount=11))
    settle(gateway, callback_body(checkout, amount=None))

    assert gateway.simulator.ledger()["queries"] == []
    assert gateway.transaction(transaction_id)["status"] == "PENDING"


def test_a_right_callback_after_a_wrong_one_still_completes(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout, amount=11))
    settle(gateway, callback_body(checkout))

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert view["attention"] is None


def test_words_that_postgres_cannot_store_do_not_stop_a_settlement(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    body = callback_body(gateway.checkout_request_id(SILENT), code=1032)
    settle(gateway, body.replace(b"cancelled", rb"\u0000\ud800cancelled"))

    assert gateway.transaction(transaction_id)["status"] == "FAILED"


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

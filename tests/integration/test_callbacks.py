"""What each callback does to its transaction, over the real API and the real database."""

from __future__ import annotations

import threading

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.settings import API_KEY
from harness.settling import SILENT, outcomes, settle, types_told
from mpesa_gateway.domain.work import Work, WorkKind


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
    gateway.notifier.take()
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
    work = gateway.notifier.take()
    threads = [threading.Thread(target=gateway.dispatcher.run, args=[it]) for it in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes(gateway)) == [
        ("APPLIED", "completed"),
        ("QUARANTINED", "receipt_reused"),
    ]


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
        "PhoneNumber": "254712345678",
    }


def test_an_unreadable_body_is_kept_in_quarantine(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    settle(gateway, b"\xff{not json")

    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    (row,) = gateway.rows("SELECT body, state, outcome FROM callbacks")
    assert row == {"body": b"\xff{not json", "state": "QUARANTINED", "outcome": "unreadable"}


def test_an_unrecognised_code_fails_after_two_silent_queries_and_says_so(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(SILENT), code=7777))
    for waited in (61, 121):
        assert gateway.transaction(transaction_id)["status"] == "PENDING"
        gateway.clock.advance(seconds=waited)
        gateway.sweep()

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
        gateway.dispatcher.run(Work(kind, 999_999))

    assert gateway.notifier.take() == []


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

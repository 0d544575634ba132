"""Field cases: what users of M-Pesa integrations reported, over HTTP to the running gateway."""

from __future__ import annotations

import gzip
import json
import threading
from typing import Any

import pytest

from harness.bodies import callback_body
from harness.data import DIRECTORY
from harness.gateway import Gateway
from harness.receiver import Answer
from harness.settling import SILENT, outcomes, settle, types_told

CHECKOUT = "ws_CO_021020261805069708374149"
# No callback of its own; the query says paid, or cancelled.
PAID, CANCELLED = "254712344040", "254712344041"
ACCOUNTS = "SELECT kind FROM transaction_events WHERE source = 'query' ORDER BY id"


@pytest.fixture
def gateway(kept_gateway: Gateway) -> Gateway:
    return kept_gateway


def field_case(name: str) -> bytes:
    return (DIRECTORY / name).read_bytes()


def pay(gateway: Gateway, phone: str = SILENT) -> str:
    """A payment with the id that the recorded bodies name."""
    gateway.next_push(CheckoutRequestID=CHECKOUT)
    return gateway.pay(phone)


def call_back(gateway: Gateway, phone: str, body: bytes, **headers: str) -> None:
    assert gateway.post(gateway.callback_path(phone), body, **headers).status_code == 200
    gateway.work()


def wait_and_sweep(gateway: Gateway, seconds: float) -> None:
    gateway.clock.advance(seconds=seconds)
    gateway.sweep()


def query_says(gateway: Gateway, code: Any, **members: Any) -> None:
    body = {"ResponseCode": "0", "ResultCode": code, "ResultDesc": "said by a query", **members}
    gateway.next_query(status=200, body=body)


def no_value(name: str, value: Any) -> dict[str, Any]:
    return {name: value}


def status(gateway: Gateway, transaction_id: str) -> str:
    return str(gateway.transaction(transaction_id)["status"])


# ---------------------------------------------------------------- FC1: a body is judged whole


@pytest.mark.parametrize("code", ["00000000", "00", "0x0", "\uff10", False, 7777, "1032", None, []])
def test_a_body_with_a_receipt_and_another_code_is_never_final_and_a_query_decides(
    gateway: Gateway, code: Any
) -> None:
    transaction_id = pay(gateway, PAID)
    body = json.loads(field_case("callbacks/field_zeros_8_with_receipt.json"))
    body["Body"]["stkCallback"]["ResultCode"] = code
    gateway.post(gateway.callback_path(PAID), json.dumps(body).encode())
    (callback,) = gateway.notifier.take()
    gateway.dispatcher.run(callback)
    assert status(gateway, transaction_id) == "PENDING"
    assert outcomes(gateway) == [("HELD", "confirming")]
    gateway.work()

    view = gateway.transaction(transaction_id)
    assert (view["status"], view["receipt"]) == ("COMPLETED", "TKU7X2Q9LM")
    assert view["settled_by"] == "query"
    assert types_told(gateway) == ["transaction.completed"]


@pytest.mark.parametrize("code", ["00000000", 7777, 1032])
def test_two_queries_against_a_receipt_ask_for_an_operator(gateway: Gateway, code: Any) -> None:
    transaction_id = pay(gateway, CANCELLED)
    body = json.loads(field_case("callbacks/field_zeros_8_with_receipt.json"))
    body["Body"]["stkCallback"]["ResultCode"] = code
    call_back(gateway, CANCELLED, json.dumps(body).encode())
    for _ in range(3):
        wait_and_sweep(gateway, 300)

    view = gateway.transaction(transaction_id)
    assert view["status"] == "PENDING"
    assert "Compare it with the M-PESA statement" in view["attention"]


@pytest.mark.parametrize("code", [b"0e9", b"0E+2", b"-0.0"])
def test_a_number_that_is_zero_in_other_clothes_is_held_too(gateway: Gateway, code: bytes) -> None:
    transaction_id = pay(gateway)
    body = callback_body(CHECKOUT, amount=None, receipt=None)
    settle(gateway, body.replace(b'"ResultCode": 0', b'"ResultCode": ' + code))
    assert status(gateway, transaction_id) == "PENDING"
    assert outcomes(gateway) == [("HELD", "confirming")]


@pytest.mark.parametrize("twice", [b"false", b'"0"', b"1032"])
def test_two_codes_in_one_body_end_nothing(gateway: Gateway, twice: bytes) -> None:
    transaction_id = pay(gateway)
    once = callback_body(CHECKOUT)
    settle(gateway, once.replace(b'"ResultCode"', b'"ResultCode": %s, "ResultCode"' % twice))
    assert status(gateway, transaction_id) == "PENDING"
    assert outcomes(gateway) == [("QUARANTINED", "unreadable")]


# ------------------------------------------------------------- FC2: whom an answer speaks of


def test_a_query_that_names_another_payment_is_no_information(gateway: Gateway) -> None:
    transaction_id = pay(gateway)
    body = field_case("query/field_paid_but_names_another_payment.json")
    for _ in range(2):
        gateway.next_query(status=200, body=json.loads(body))
        wait_and_sweep(gateway, 300)

    assert status(gateway, transaction_id) == "PENDING"
    said = [row["kind"] for row in gateway.rows(ACCOUNTS)]
    assert said == ["said_other_payment", "said_other_payment"]


def test_another_payments_failure_and_progress_are_not_ours_either(gateway: Gateway) -> None:
    transaction_id = pay(gateway, CANCELLED)
    wait_and_sweep(gateway, 91)
    for code in ("1037", "4999", "1037"):
        query_says(gateway, code, CheckoutRequestID="ws_CO_another")
        wait_and_sweep(gateway, 600)
    (row,) = gateway.rows("SELECT provisional_code FROM transactions")
    assert row["provisional_code"] == "1032"
    assert status(gateway, transaction_id) == "PENDING"
    wait_and_sweep(gateway, 3600)
    assert gateway.transaction(transaction_id)["failure"]["code"] == "1032"


# ----------------------------------------------- FC10, FC11: a failure that may be none


def test_an_unlisted_code_is_asked_about_twice_before_it_is_a_failure(gateway: Gateway) -> None:
    transaction_id = pay(gateway)
    settle(gateway, field_case("callbacks/field_unlisted_code_still_processing.json"))
    assert outcomes(gateway) == [("HELD", "unconfirmed")]
    assert gateway.simulator.ledger()["queries"] == [], "not at once"
    wait_and_sweep(gateway, 61)
    assert status(gateway, transaction_id) == "PENDING"
    wait_and_sweep(gateway, 121)

    view = gateway.transaction(transaction_id)
    assert view["failure"] == {"code": "5000", "reason": "unrecognised"}
    assert view["settled_by"] == "callback"
    assert view["result"]["recognised"] is False
    assert outcomes(gateway) == [("APPLIED", "failed")]
    assert types_told(gateway) == ["transaction.failed"]


def test_two_sources_that_agree_end_an_unlisted_code(gateway: Gateway) -> None:
    transaction_id = pay(gateway)
    settle(gateway, field_case("callbacks/field_unlisted_code_still_processing.json"))
    query_says(gateway, "5000")
    wait_and_sweep(gateway, 61)
    assert gateway.transaction(transaction_id)["failure"]["reason"] == "unrecognised"


@pytest.mark.parametrize("case", ["unlisted_code_still_processing", "sfc_ic0003_after_pin"])
def test_a_payment_that_is_paid_after_such_a_callback_is_completed(
    gateway: Gateway, case: str
) -> None:
    transaction_id = pay(gateway, PAID)
    call_back(gateway, PAID, field_case(f"callbacks/field_{case}.json"))
    wait_and_sweep(gateway, 61)
    wait_and_sweep(gateway, 30)
    assert status(gateway, transaction_id) == "COMPLETED"
    assert types_told(gateway) == ["transaction.completed"]


def test_a_success_after_an_unlisted_code_completes_it_with_its_receipt(gateway: Gateway) -> None:
    transaction_id = pay(gateway)
    settle(gateway, field_case("callbacks/field_unlisted_code_still_processing.json"))
    settle(gateway, callback_body(CHECKOUT))
    assert gateway.transaction(transaction_id)["receipt"] == "UJ22T8IYOU"
    assert outcomes(gateway) == [("APPLIED", "completed"), ("APPLIED", "completed")]


def test_answers_of_nobody_do_not_confirm_an_unlisted_code(gateway: Gateway) -> None:
    transaction_id = pay(gateway)
    settle(gateway, field_case("callbacks/field_unlisted_code_still_processing.json"))
    for _ in range(3):
        gateway.next_query(status=503, body="<html>no</html>", content_type="text/html")
        wait_and_sweep(gateway, 1000)
    assert status(gateway, transaction_id) == "PENDING"
    wait_and_sweep(gateway, 4000)
    assert status(gateway, transaction_id) == "PENDING", "the first answer of Safaricom's own"
    wait_and_sweep(gateway, 4000)
    assert status(gateway, transaction_id) == "FAILED"


def test_in_flight_begins_the_count_anew(gateway: Gateway) -> None:
    transaction_id = pay(gateway)
    settle(gateway, field_case("callbacks/field_unlisted_code_still_processing.json"))
    wait_and_sweep(gateway, 61)
    query_says(gateway, "4999")
    wait_and_sweep(gateway, 121)
    wait_and_sweep(gateway, 300)
    assert status(gateway, transaction_id) == "PENDING"
    wait_and_sweep(gateway, 600)
    assert status(gateway, transaction_id) == "FAILED"


def test_the_string_code_is_asked_about_once(gateway: Gateway) -> None:
    transaction_id = pay(gateway)
    settle(gateway, field_case("callbacks/field_sfc_ic0003_after_pin.json"))
    view = gateway.transaction(transaction_id)
    assert view["failure"] == {"code": "SFC_IC0003", "reason": "merchant_unknown"}
    assert len(gateway.simulator.ledger()["queries"]) == 1


# ------------------------------------------------------- FC12: paid while the prompt is open


def test_an_early_success_is_asked_again_at_the_end_of_the_prompt(gateway: Gateway) -> None:
    transaction_id = pay(gateway, PAID)
    wait_and_sweep(gateway, 61)
    assert status(gateway, transaction_id) == "PENDING"
    wait_and_sweep(gateway, 28)
    assert len(gateway.simulator.ledger()["queries"]) == 1
    wait_and_sweep(gateway, 2)
    assert status(gateway, transaction_id) == "COMPLETED"


def test_an_early_success_that_a_callback_denies_is_no_success(gateway: Gateway) -> None:
    transaction_id = pay(gateway, PAID)
    wait_and_sweep(gateway, 61)
    call_back(gateway, PAID, callback_body(CHECKOUT, code=1032))
    assert gateway.transaction(transaction_id)["failure"]["code"] == "1032"
    assert types_told(gateway) == ["transaction.failed"]


def test_an_early_success_that_is_not_repeated_is_no_success(gateway: Gateway) -> None:
    transaction_id = pay(gateway, CANCELLED)
    query_says(gateway, "0")
    wait_and_sweep(gateway, 61)
    wait_and_sweep(gateway, 30)
    assert status(gateway, transaction_id) == "PENDING"
    wait_and_sweep(gateway, 600)
    assert gateway.transaction(transaction_id)["failure"]["code"] == "1032"


# ------------------------------------------------------------ FC13: what a relay does to a body


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {}])
@pytest.mark.parametrize("query", ["", "?long=way"])
def test_a_packed_body_is_stored_as_it_came_and_read(
    gateway: Gateway, headers: dict[str, str], query: str
) -> None:
    transaction_id = pay(gateway)
    sent = gzip.compress(callback_body(CHECKOUT))
    response = gateway.post(gateway.callback_path(SILENT) + query, sent, **headers)
    assert response.status_code == 200
    gateway.work()
    assert status(gateway, transaction_id) == "COMPLETED"
    (row,) = gateway.rows("SELECT body, headers FROM callbacks")
    assert row["body"] == sent
    assert row["headers"].get("content-encoding") == headers.get("Content-Encoding")


def test_a_held_body_that_was_packed_still_brings_its_receipt(gateway: Gateway) -> None:
    transaction_id = pay(gateway, PAID)
    packed = gzip.compress(callback_body(CHECKOUT, amount=None))
    call_back(gateway, PAID, packed, **{"Content-Encoding": "gzip"})
    assert gateway.transaction(transaction_id)["receipt"] == "UJ22T8IYOU"


# -------------------------------------------------------- FC17, FC18, FC20, FC21: small ones


@pytest.mark.parametrize("name", ["account_reference", "description", "webhook_url"])
def test_an_optional_field_that_is_null_is_absent(gateway: Gateway, name: str) -> None:
    response = gateway.initiate(SILENT, **no_value(name, None))
    if name == "webhook_url":
        assert response.status_code == 400, "the merchant of this gateway has none of its own"
        assert "the merchant has none" in response.text
        return
    assert response.status_code == 201
    key = gateway.rows("SELECT idempotency_key FROM transactions")[0]["idempotency_key"]
    again = gateway.initiate(SILENT, idempotency_key=str(key), **no_value(name, ...))
    assert (again.status_code, again.json()) == (201, response.json())


def test_a_required_field_that_is_null_is_bad_input(gateway: Gateway) -> None:
    response = gateway.initiate(None, amount=None)  # type: ignore[arg-type]
    assert response.status_code == 400
    assert {it["field"] for it in response.json()["errors"]} == {"amount", "phone"}


def test_a_replay_does_not_say_when_to_try_again(gateway: Gateway) -> None:
    gateway.next_push(outcome="busy")
    body = gateway.body(SILENT)
    first = gateway.initiate(**body)
    again = gateway.initiate(**body)
    assert (first.status_code, again.status_code) == (503, 503)
    assert first.headers["Retry-After"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Retry-After" not in again.headers
    assert again.json() == first.json()


@pytest.mark.parametrize(
    ("prose", "tops_up"),
    [
        ("The balance is insufficient for the transaction.", True),
        ("[MpesaCB - ]The balance is insufficient for the transaction.", True),
        ("", True),
        ("The initiator information is invalid.", False),
    ],
)
def test_code_1_tells_the_customer_to_top_up_unless_the_text_says_otherwise(
    gateway: Gateway, prose: str, tops_up: bool
) -> None:
    transaction_id = pay(gateway)
    body = json.loads(callback_body(CHECKOUT, code=1))
    body["Body"]["stkCallback"]["ResultDesc"] = prose
    settle(gateway, json.dumps(body).encode())
    result = gateway.transaction(transaction_id)["result"]
    assert (result["code"], result["reason"]) == ("1", "insufficient_funds")
    assert ("Top up" in result["message"]["en"]) is tops_up
    assert ("Ongeza" in result["message"]["sw"]) is tops_up
    assert json.loads(gateway.receiver.requests[-1].body)["result"] == result


@pytest.mark.parametrize("phone", [254708374149, "254708374149", "2547 ***** 149", "bb" * 32])
def test_a_phone_is_text_in_views_and_webhooks(gateway: Gateway, phone: Any) -> None:
    transaction_id = pay(gateway)
    settle(gateway, callback_body(CHECKOUT, PhoneNumber=phone))
    shown = gateway.transaction(transaction_id)["metadata"]["PhoneNumber"]
    told = json.loads(gateway.receiver.requests[-1].body)["metadata"]["PhoneNumber"]
    assert shown == told == str(phone)


# ------------------------------------------------------------------------------ right already


def test_eight_copies_in_four_byte_forms_at_once_are_one_payment(gateway: Gateway) -> None:
    transaction_id = pay(gateway)
    body = callback_body(CHECKOUT)
    forms = [
        body,
        json.dumps(json.loads(body), indent=1).encode(),
        b"\xef\xbb\xbf" + body,
        body.decode().encode("utf-16"),
    ]
    path = gateway.callback_path(SILENT)
    threads = [
        threading.Thread(target=gateway.post, args=(path, form)) for form in forms for _ in "12"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gateway.sweep()
    assert status(gateway, transaction_id) == "COMPLETED"
    assert types_told(gateway) == ["transaction.completed"]
    assert gateway.rows("SELECT sum(copies) AS n, count(*) AS m FROM callbacks") == [
        {"n": 8, "m": 4}
    ]


def test_cancelled_then_paid_then_cancelled_ends_once_and_tells_of_the_money(
    gateway: Gateway,
) -> None:
    transaction_id = pay(gateway)
    settle(gateway, callback_body(CHECKOUT, code=1032))
    settle(gateway, callback_body(CHECKOUT))
    settle(gateway, callback_body(CHECKOUT, code="1032"))
    view = gateway.transaction(transaction_id)
    assert view["status"] == "FAILED"
    assert [it["kind"] for it in view["conflicts"]] == ["paid_after_failed"]
    assert types_told(gateway) == ["transaction.failed", "transaction.conflict"]


@pytest.mark.parametrize("code", ["1037", "1001"])
def test_failed_by_two_queries_and_paid_later_is_a_conflict_with_its_receipt(
    gateway: Gateway, code: str
) -> None:
    transaction_id = pay(gateway)
    for waited in (91, 300):
        query_says(gateway, code)
        wait_and_sweep(gateway, waited)
    assert gateway.transaction(transaction_id)["failure"]["code"] == code
    settle(gateway, callback_body(CHECKOUT))
    told = json.loads(gateway.receiver.requests[-1].body)
    assert (told["type"], told["conflict"]["receipt"]) == ("transaction.conflict", "UJ22T8IYOU")


def test_a_webhook_survives_a_parser_that_writes_it_again(gateway: Gateway) -> None:
    """`JSON.stringify(JSON.parse(body))`: the same bytes, so that a lazy check passes too."""
    pay(gateway)
    settle(gateway, callback_body(CHECKOUT))
    body = gateway.receiver.requests[-1].body
    again = json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode()
    assert again == body


@pytest.mark.parametrize("answer", [Answer(302), Answer(403, {}, b"<html>blocked</html>")])
def test_a_redirect_or_a_web_firewall_takes_no_webhook(gateway: Gateway, answer: Answer) -> None:
    transaction_id = pay(gateway)
    gateway.receiver.answers = [answer]
    settle(gateway, callback_body(CHECKOUT))
    (delivery,) = gateway.get(f"/transactions/{transaction_id}/deliveries").json()["items"]
    assert delivery["state"] == "PENDING"
    wait_and_sweep(gateway, 61)
    (delivery,) = gateway.get(f"/transactions/{transaction_id}/deliveries").json()["items"]
    assert (delivery["state"], delivery["attempts_made"]) == ("DELIVERED", 2)

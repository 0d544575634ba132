"""Every outcome: the push's answer, the callbacks, the ledger and the query."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from decimal import Decimal

import pytest
import requests

from daraja_simulator.outcomes import OUTCOMES, RESULT_TEXTS, get_outcome

CHECKOUT_ID = re.compile(r"ws_CO_[0-9]{14}[0-9]{3,4}700[0-9]{6}\Z")
MERCHANT_ID = re.compile(r"[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{16}\Z")
RECEIPT = re.compile(r"[0-9A-Z]{10}\Z")

PUSH_STATUS = {
    "connection_cut": None,
    "internal_error": 500,
    "refused": 400,
    "busy": 500,
    "spike_arrest": 429,
    "html_503": 503,
    "token_fault": 401,
}
COPIES = {
    "no_callback_paid": 0,
    "no_callback_cancelled": 0,
    "no_callback_unknown": 0,
    "refused": 0,
    "busy": 0,
    "spike_arrest": 0,
    "html_503": 0,
    "token_fault": 0,
    "query_names_another": 0,
    "callback_twice": 2,
    "callback_five_times": 5,
}
RESULT_CODES = {
    "cancelled": 1032,
    "insufficient_funds": 1,
    "wrong_pin": 2001,
    "no_answer": 1037,
    "string_code": "SFC_IC0003",
    "numbers_as_strings": "0",
    "unlisted_code": 5000,
    "unlisted_code_paid": "00000000",
    "query_paid_while_open": 1032,
}
NOT_CHARGED = {
    "cancelled",
    "insufficient_funds",
    "wrong_pin",
    "no_answer",
    "string_code",
    "no_callback_cancelled",
    "no_callback_unknown",
    "refused",
    "busy",
    "spike_arrest",
    "html_503",
    "token_fault",
    "unlisted_code",
    "query_names_another",
    "query_paid_while_open",
}
QUERY_CODES = {
    "cancelled": "1032",
    "insufficient_funds": "1",
    "wrong_pin": "2001",
    "no_answer": "1037",
    "string_code": "SFC_IC0003",
    "no_callback_cancelled": "1032",
    "query_contradicts": "1032",
    "query_paid_while_open": "1032",
}
DIGITS = {
    "0000": "paid",
    "1032": "cancelled",
    "0001": "insufficient_funds",
    "2001": "wrong_pin",
    "1037": "no_answer",
    "0003": "string_code",
    "4040": "no_callback_paid",
    "4041": "no_callback_cancelled",
    "4042": "no_callback_unknown",
    "2002": "callback_twice",
    "2003": "callback_five_times",
    "3030": "callback_late",
    "3131": "callback_before_answer",
    "5040": "connection_cut",
    "5041": "internal_error",
    "4000": "refused",
    "5002": "busy",
    "4290": "spike_arrest",
    "7001": "wrong_amount",
    "7002": "query_contradicts",
    "7003": "no_amount",
    "7004": "no_metadata",
    "7005": "numbers_as_strings",
    "7006": "unlisted_code",
    "7007": "unlisted_code_paid",
    "7008": "query_names_another",
    "7009": "query_paid_while_open",
    "7010": "hashed_phone",
    "7011": "balance_text",
    "7012": "ends_open_prompt",
    "4010": "token_fault",
    "8001": "hang",
    "8002": "html_503",
    "8003": "without_id",
}
each_outcome = pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda each: each.name)
each_accepted = pytest.mark.parametrize(
    "outcome", [each for each in OUTCOMES if each.accepted], ids=lambda each: each.name
)


def phone_of(outcome) -> str:
    return f"25470000{outcome.digits}"


def try_push(caller, outcome) -> int | None:
    """The answer's status, or None when there was no answer."""
    try:
        return int(caller.push(phone_of(outcome)).status_code)
    except requests.ConnectionError:
        return None


def test_the_digits_are_the_documented_ones():
    assert {each.digits: each.name for each in OUTCOMES} == DIGITS
    assert all(each.result_code in RESULT_TEXTS for each in OUTCOMES)


def test_other_digits_pay():
    assert get_outcome("254712345678").name == "paid"


@each_outcome
def test_the_push_is_answered_as_the_table_says(caller, outcome):
    assert try_push(caller, outcome) == PUSH_STATUS.get(outcome.name, 200)


@each_outcome
def test_callbacks_come_as_often_as_the_table_says_and_never_again(caller, receiver, outcome):
    try_push(caller, outcome)
    ledger = caller.ended()
    copies = COPIES.get(outcome.name, 1)
    assert len(receiver.received) == copies
    assert len({each.body for each in receiver.received}) <= 1
    assert [each["status"] for each in ledger["callbacks"]] == [200] * copies
    assert {each["copy"] for each in ledger["callbacks"]} == set(range(1, copies + 1))
    assert ledger["pushes"][0]["callback_copies"] == copies
    assert all(each["body"].encode() == receiver.received[0].body for each in ledger["callbacks"])


@each_outcome
def test_the_customer_is_charged_once_or_not_at_all(caller, outcome):
    try_push(caller, outcome)
    ledger = caller.ended()
    debits = ledger["debits"]
    assert [each["amount"] for each in debits] == ([] if outcome.name in NOT_CHARGED else [10])
    (push,) = ledger["pushes"]
    assert push["accepted"] is outcome.accepted
    assert push["outcome"] == outcome.name
    assert push["answer_status"] == PUSH_STATUS.get(outcome.name, 200)
    for debit in debits:
        assert debit["checkout_request_id"] == push["checkout_request_id"]
        assert debit["sequence"] > push["sequence"]


@each_accepted
def test_the_query_says_how_it_ended(caller, outcome):
    try_push(caller, outcome)
    (push,) = caller.ended()["pushes"]
    reply = caller.query(push["checkout_request_id"])
    if outcome.query_names_another:
        assert reply.json()["ResultCode"] == "0"
        assert reply.json()["CheckoutRequestID"] != push["checkout_request_id"]
        assert reply.json()["MerchantRequestID"] != push["merchant_request_id"]
        return
    if outcome.query_code is None:
        assert reply.status_code == 500
        assert reply.json()["errorCode"] == "500.001.1001"
        assert reply.json()["errorMessage"] == ""
        return
    assert reply.status_code == 200
    assert reply.json() == {
        "ResponseCode": "0",
        "ResponseDescription": "The service request has been accepted successfully",
        "MerchantRequestID": push["merchant_request_id"],
        "CheckoutRequestID": push["checkout_request_id"],
        "ResultCode": QUERY_CODES.get(outcome.name, "0"),
        "ResultDesc": RESULT_TEXTS[QUERY_CODES.get(outcome.name, "0")].query,
    }


@pytest.mark.parametrize(
    "outcome",
    [each for each in OUTCOMES if COPIES.get(each.name, 1)],
    ids=lambda each: each.name,
)
def test_the_callback_says_what_happened(caller, receiver, outcome):
    try_push(caller, outcome)
    (push,) = caller.ended()["pushes"]
    callback = receiver.received[0].callback
    assert callback["MerchantRequestID"] == push["merchant_request_id"]
    assert callback["CheckoutRequestID"] == push["checkout_request_id"]
    assert callback["ResultCode"] == RESULT_CODES.get(outcome.name, 0)
    assert callback["ResultDesc"] == RESULT_TEXTS[outcome.result_code].callback
    without = outcome.name in NOT_CHARGED | {"no_metadata"}
    assert ("CallbackMetadata" in callback) is not without


def test_an_accepted_push_has_both_ids(caller):
    body = caller.push("254700009999").json()
    assert MERCHANT_ID.match(body.pop("MerchantRequestID"))
    checkout_request_id = body.pop("CheckoutRequestID")
    assert CHECKOUT_ID.match(checkout_request_id)
    assert checkout_request_id.endswith("700009999")
    assert body == {
        "ResponseCode": "0",
        "ResponseDescription": "Success. Request accepted for processing",
        "CustomerMessage": "Success. Request accepted for processing",
    }


def test_a_success_callback_has_the_documented_bytes_and_headers(caller, receiver):
    caller.push("254700009999")
    ledger = caller.ended()
    (push,), (debit,) = ledger["pushes"], ledger["debits"]
    received = receiver.received[0]
    date = received.items["TransactionDate"]
    expected = (
        '{"Body":{"stkCallback":{'
        f'"MerchantRequestID":"{push["merchant_request_id"]}",'
        f'"CheckoutRequestID":"{push["checkout_request_id"]}",'
        '"ResultCode":0,'
        '"ResultDesc":"The service request is processed successfully.",'
        '"CallbackMetadata":{"Item":['
        '{"Name":"Amount","Value":10.00},'
        f'{{"Name":"MpesaReceiptNumber","Value":"{debit["receipt"]}"}},'
        '{"Name":"Balance"},'
        f'{{"Name":"TransactionDate","Value":{date}}},'
        '{"Name":"PhoneNumber","Value":254700009999}]}}}}'
    )
    assert received.body == expected.encode()
    assert isinstance(date, int)
    assert len(str(date)) == 14
    assert RECEIPT.match(debit["receipt"])
    assert received.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert received.headers["Businessshortcode"] == "174379"
    assert received.path == "/back/0a1b"


def test_a_wrong_amount_is_in_the_callback_only(caller, receiver):
    caller.push("254700007001")
    assert caller.ended()["debits"][0]["amount"] == 10
    assert b'"Value":11.00}' in receiver.received[0].body


def test_a_callback_may_have_no_amount(caller, receiver):
    caller.push("254700007003")
    caller.ended()
    assert set(receiver.received[0].items) == {
        "MpesaReceiptNumber",
        "Balance",
        "TransactionDate",
        "PhoneNumber",
    }


def test_a_callback_may_have_texts_for_numbers(caller, receiver):
    caller.push("254700007005")
    caller.ended()
    items = receiver.received[0].items
    assert items["Amount"] == "10.00"
    assert items["PhoneNumber"] == "254700007005"
    assert re.fullmatch(r"[0-9]{14}", items["TransactionDate"])


def test_a_callback_may_have_a_hashed_phone(caller, receiver):
    caller.push("254700007010")
    caller.ended()
    phone = receiver.received[0].items["PhoneNumber"]
    assert phone == hashlib.sha256(b"254700007010").hexdigest()


def test_a_callback_may_have_the_text_of_an_object_for_its_balance(caller, receiver):
    caller.push("254700007011")
    caller.ended()
    assert receiver.received[0].items["Balance"].startswith("{Amount={CurrencyCode=KES")


def test_a_query_may_say_paid_while_the_prompt_is_open(caller, receiver):
    caller.simulator.change(callback_delay="300ms")
    caller.push("254700007009")
    checkout_request_id = caller.simulator.ledger()["pushes"][0]["checkout_request_id"]
    assert caller.query(checkout_request_id).json()["ResultCode"] == "0"
    caller.ended()
    assert receiver.received[0].callback["ResultCode"] == 1032
    assert caller.simulator.ledger()["debits"] == []


def test_a_second_push_may_end_the_first(caller, receiver):
    caller.simulator.change(callback_delay="300ms")
    for _ in range(2):
        assert caller.push("254700007012").status_code == 200
    ledger = caller.ended()
    first, second = (it["checkout_request_id"] for it in ledger["pushes"])
    said = {it.callback["CheckoutRequestID"]: it.callback["ResultCode"] for it in receiver.received}
    assert said == {first: 1032, second: 0}
    assert [it["checkout_request_id"] for it in ledger["debits"]] == [second]


def test_a_refused_token_may_come_in_the_api_gateways_envelope(caller):
    fault = caller.push("254700004010").json()["fault"]
    assert fault["faultstring"] == "Invalid Access Token"


def test_a_callback_may_come_before_the_answer(caller, receiver):
    caller.simulator.change(callback_delay="10s")
    assert caller.push("254700003131").status_code == 200
    assert len(receiver.received) == 1
    ledger = caller.simulator.ledger()
    assert len(ledger["debits"]) == len(ledger["callbacks"]) == 1


def test_a_late_callback_comes_after_the_debit(caller, receiver):
    caller.simulator.change(late_delay="200ms")
    caller.push("254700003030")
    checkout_request_id = caller.simulator.ledger()["pushes"][0]["checkout_request_id"]
    caller.wait_until(lambda: caller.simulator.ledger()["debits"])
    assert caller.query(checkout_request_id).json()["ResultCode"] == "0"
    assert not receiver.received
    caller.ended()
    assert len(receiver.received) == 1


def test_a_push_that_hangs_is_called_back_before_its_answer(caller, receiver):
    caller.simulator.change(hang_delay="300ms")
    answer = caller.push("254700008001")
    assert answer.elapsed.total_seconds() > 0.3
    assert len(receiver.received) == 1
    assert answer.json()["CheckoutRequestID"] == receiver.received[0].callback["CheckoutRequestID"]


def test_a_caller_that_hangs_up_changes_nothing(caller, receiver):
    caller.simulator.change(push_delay="100ms")
    with pytest.raises(requests.Timeout):
        caller.session.post(
            caller.simulator.url + "/mpesa/stkpush/v1/processrequest",
            json=caller.push_body(),
            headers={"Authorization": f"Bearer {caller.token}"},
            timeout=0.03,
        )
    receiver.wait_for(1)
    assert len(caller.ended()["debits"]) == 1


def test_an_answer_without_an_id_has_everything_else(caller):
    body = caller.push("254700008003").json()
    assert "CheckoutRequestID" not in body
    assert body["ResponseCode"] == "0"


def test_the_throttle_answers_in_its_own_envelope(caller):
    body = caller.push("254700004290").json()
    assert body["fault"]["detail"] == {"errorcode": "policies.ratelimit.SpikeArrestViolation"}
    assert body["fault"]["faultstring"].startswith("Spike arrest violation. Allowed rate : Message")


@pytest.mark.parametrize(
    ("digits", "code", "message"),
    [
        ("4000", "400.002.02", "Bad Request - Invalid PhoneNumber"),
        ("5002", "500.003.02", "System is busy. Please try again in few minutes."),
        ("5041", "500.003.1001", "Internal Server Error"),
    ],
)
def test_errors_have_the_normal_body(caller, digits, code, message):
    body = caller.push(f"25470000{digits}").json()
    assert MERCHANT_ID.match(body["requestId"])
    assert (body["errorCode"], body["errorMessage"]) == (code, message)


def test_a_page_of_html_is_no_json(caller):
    answer = caller.push("254700008002")
    assert answer.headers["Content-Type"] == "text/html"
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_receipts_and_ids_are_unique(simulate):
    caller = simulate(subscriber_lock=False)
    for _ in range(50):
        caller.push()
    ledger = caller.ended()
    ids = Counter(each["checkout_request_id"] for each in ledger["pushes"])
    receipts = Counter(each["receipt"] for each in ledger["debits"])
    assert len(ids) == len(receipts) == 50
    assert max(ids.values()) == max(receipts.values()) == 1


def test_the_largest_amount_keeps_its_decimals(caller, receiver):
    caller.push(Amount="250000")
    caller.ended()
    body = json.loads(receiver.received[0].body, parse_float=Decimal)
    item = body["Body"]["stkCallback"]["CallbackMetadata"]["Item"][0]
    assert str(item["Value"]) == "250000.00"

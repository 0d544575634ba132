import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.collecting import every_case
from harness.data import Answer, load_push
from harness.factories import CHECKOUT_REQUEST_ID
from harness.properties import as_bytes, json_values, repeatable
from mpesa_gateway.domain.push import (
    MAX_ID_LENGTH,
    MAX_MESSAGE_LENGTH,
    NOT_SENT_CODES,
    REFUSED_CODES,
    TOKEN_CODES,
    PushClass,
    PushOutcome,
    classify_push,
    credentials_refused,
    not_sent,
    parse_answer,
    text_of,
    unknown,
)
from mpesa_gateway.domain.results import PUSH_REASONS

LOCKED = "Unable to lock subscriber, a transaction is already in process for the current subscriber"
SPIKE = "policies.ratelimit.SpikeArrestViolation"
QUOTA = "policies.ratelimit.QuotaViolation"
EVERY_STATUS = [200, 201, 302, 400, 401, 403, 404, 409, 429, 500, 502, 503, 504, 599]

# Answers that are nearly right: the members that decide, with values of every kind.
_WORDS = [
    "0",
    "1",
    "",
    " 0 ",
    CHECKOUT_REQUEST_ID,
    LOCKED,
    "Invalid Access Token",
    "Merchant does not exist",
    "Wrong credentials",
    "System is busy",
    SPIKE,
    "500.001.1001",
    "401.003.01",
    "500.003.1001",
    *sorted(REFUSED_CODES | TOKEN_CODES | set(NOT_SENT_CODES)),
]
_VALUES = st.sampled_from(_WORDS) | json_values()
near_answers = st.fixed_dictionaries(
    {},
    optional={
        "CheckoutRequestID": _VALUES,
        "MerchantRequestID": _VALUES,
        "ResponseCode": _VALUES,
        "ResponseDescription": _VALUES,
        "errorCode": _VALUES,
        "errorMessage": _VALUES,
        "fault": _VALUES
        | st.fixed_dictionaries(
            {}, optional={"faultstring": _VALUES, "detail": st.dictionaries(st.text(), _VALUES)}
        ),
    },
)
statuses = st.sampled_from(EVERY_STATUS)


def error(code: object, message: object = "", **rest: object) -> bytes:
    return as_bytes({"requestId": "1", "errorCode": code, "errorMessage": message, **rest})


@every_case("answer", load_push(), ids=lambda answer: answer.file)
def test_every_recorded_answer_has_its_class(answer: Answer):
    outcome = classify_push(answer.status, answer.body)
    assert outcome.kind.name == answer.expected
    assert outcome.reason == answer.reason
    assert outcome.code == answer.code
    assert outcome.retry_after_s == answer.retry_after_s
    assert outcome.checkout_request_id == answer.checkout_request_id


def test_an_accepted_push_keeps_safaricoms_words():
    body = {
        "MerchantRequestID": "29115-34620561-1",
        "CheckoutRequestID": CHECKOUT_REQUEST_ID,
        "ResponseCode": "0",
        "ResponseDescription": "Success. Request accepted for processing",
    }
    assert classify_push(200, as_bytes(body)) == PushOutcome(
        PushClass.ACCEPTED,
        "",
        "0",
        "Success. Request accepted for processing",
        checkout_request_id=CHECKOUT_REQUEST_ID,
        merchant_request_id="29115-34620561-1",
    )


@every_case("code", sorted(REFUSED_CODES))
def test_a_documented_code_is_a_refusal_under_every_status(code):
    for status in EVERY_STATUS:
        outcome = classify_push(status, error(code, "Bad Request"))
        assert outcome == PushOutcome(PushClass.REFUSED, "refused", code, "Bad Request")


@pytest.mark.parametrize("code", [*sorted(TOKEN_CODES), "401.003.01"])
def test_a_token_code_is_a_rejected_token_under_every_status(code):
    for status in EVERY_STATUS:
        outcome = classify_push(status, error(code, "Invalid Access Token"))
        assert outcome.kind is PushClass.TOKEN_REJECTED
        assert outcome.reason == "credentials_refused"


@every_case(
    ("message", "kind", "reason", "retry_after_s"),
    [
        ("Merchant does not exist", PushClass.REFUSED, "refused_merchant", None),
        ("MERCHANT DOES NOT EXIST.", PushClass.REFUSED, "refused_merchant", None),
        ("[MerchantValidate] - Wrong credentials", PushClass.REFUSED, "refused_merchant", None),
        (LOCKED, PushClass.NOT_SENT, "not_sent", 60),
        (LOCKED.upper(), PushClass.NOT_SENT, "not_sent", 60),
        ("The transaction is being processed", PushClass.UNKNOWN, "unknown", None),
        ("The transaction does not Exist", PushClass.UNKNOWN, "unknown", None),
        ("System is busy", PushClass.UNKNOWN, "unknown", None),
        ("", PushClass.UNKNOWN, "unknown", None),
        (None, PushClass.UNKNOWN, "unknown", None),
        (7, PushClass.UNKNOWN, "unknown", None),
    ],
)
def test_the_message_decides_about_the_code_that_is_six_things(
    message, kind, reason, retry_after_s
):
    outcome = classify_push(500, error("500.001.1001", message))
    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert outcome.retry_after_s == retry_after_s


@every_case("code", ["500.002.1001", "500.003.1001", "00.002.1001", "599.9", 5, True])
def test_an_error_that_is_on_no_list_is_unknown_unless_it_is_a_429(code):
    for status in EVERY_STATUS:
        outcome = classify_push(status, error(code, "Internal Server Error"))
        assert outcome.kind is (PushClass.NOT_SENT if status == 429 else PushClass.UNKNOWN)


@every_case("body", [b"", b"<html>", b"[]", b"null", b"{}", b'"0"', b"\xff", b"{"])
def test_an_answer_that_says_nothing_is_unknown_under_every_status_but_429(body):
    for status in EVERY_STATUS:
        if status != 429:
            outcome = classify_push(status, body)
            assert outcome == PushOutcome(PushClass.UNKNOWN, "unknown", str(status), None)


@pytest.mark.parametrize(
    ("fault", "retry_after_s"),
    [
        ({"faultstring": "Spike arrest violation", "detail": {"errorcode": SPIKE}}, 30),
        ({"faultstring": "Quota", "detail": {"errorcode": QUOTA}}, 300),
        ({"detail": {"errorcode": SPIKE}}, 30),
    ],
)
def test_a_throttle_of_the_api_gateway_is_not_sent_under_every_status(fault, retry_after_s):
    for status in EVERY_STATUS:
        outcome = classify_push(status, as_bytes({"fault": fault}))
        assert (outcome.kind, outcome.retry_after_s) == (PushClass.NOT_SENT, retry_after_s)
        assert outcome.message == fault.get("faultstring")


@every_case(
    "fault",
    [
        None,
        [],
        "Spike arrest violation",
        {},
        {"detail": None},
        {"detail": SPIKE},
        {"detail": {"errorcode": None}},
        {"detail": {"errorcode": [SPIKE]}},
        {"detail": {"errorcode": SPIKE.lower()}},
        {"detail": {"errorcode": "keymanagement.service.invalid_access_token"}},
        {"faultstring": SPIKE},
    ],
)
def test_any_other_fault_is_unknown(fault):
    assert classify_push(500, as_bytes({"fault": fault})).kind is PushClass.UNKNOWN


def test_a_fault_beside_an_error_code_does_not_count():
    body = error("500.003.1001", "", fault={"detail": {"errorcode": SPIKE}})
    assert classify_push(500, body).kind is PushClass.UNKNOWN


@every_case("status", [200, 201, 299])
@every_case("code", ["1", 1, "99", "C2B00011", "-1", "1.0"])
def test_another_response_code_without_an_id_is_a_refusal(status, code):
    body = as_bytes({"ResponseCode": code, "ResponseDescription": "Rejected"})
    assert classify_push(status, body) == PushOutcome(
        PushClass.REFUSED, "refused", str(code), "Rejected"
    )


@every_case("status", [199, 300, 302, 400, 500])
def test_another_response_code_outside_of_2xx_is_unknown(status):
    assert classify_push(status, as_bytes({"ResponseCode": "1"})).kind is PushClass.UNKNOWN


@every_case("code", ["0", 0, 0.0, "0.0", " 0", "00", "", "  ", None, [], {}, False])
def test_what_is_no_plain_refusal_is_unknown(code):
    assert classify_push(200, as_bytes({"ResponseCode": code})).kind is PushClass.UNKNOWN


@every_case("checkout_request_id", [5, True, ["ws_CO_1"], {"id": 1}, "ws\n", "w" * 129, " \x7f"])
def test_an_id_that_cannot_be_used_is_still_no_refusal(checkout_request_id):
    body = as_bytes({"ResponseCode": "1", "CheckoutRequestID": checkout_request_id})
    assert classify_push(200, body).kind is PushClass.UNKNOWN


def test_an_id_may_be_as_long_as_its_column():
    longest = "w" * MAX_ID_LENGTH
    body = as_bytes({"ResponseCode": "0", "CheckoutRequestID": longest})
    assert classify_push(200, body).checkout_request_id == longest
    body = as_bytes({"ResponseCode": "0", "CheckoutRequestID": longest + "w"})
    assert classify_push(200, body).checkout_request_id is None


@repeatable
@given(statuses, st.binary(max_size=60) | json_values().map(as_bytes))
@example(200, b"[" * 100_000)
@example(200, b'{"ResponseCode": 1e99999999999999999999}')
@example(200, b'{"ResponseCode": ' + b"1" * 5000 + b"}")
@example(200, b'{"ResponseCode": NaN}')
def test_no_body_makes_it_raise(status, body):
    assert isinstance(classify_push(status, body), PushOutcome)


@repeatable
@given(statuses, near_answers)
def test_an_answer_with_a_usable_id_is_accepted_or_unknown(status, answer):
    answer["CheckoutRequestID"] = CHECKOUT_REQUEST_ID
    outcome = classify_push(status, as_bytes(answer))
    assert outcome.kind in (PushClass.ACCEPTED, PushClass.UNKNOWN)
    assert outcome.checkout_request_id == CHECKOUT_REQUEST_ID


@repeatable
@given(statuses, near_answers)
def test_accepted_needs_an_id_and_a_zero(status, answer):
    outcome = classify_push(status, as_bytes(answer))
    if outcome.kind is PushClass.ACCEPTED:
        assert outcome.checkout_request_id == answer["CheckoutRequestID"]
        assert str(answer["ResponseCode"]) == "0"
        assert "errorCode" not in answer


@repeatable
@given(statuses, near_answers)
def test_only_what_is_on_a_list_is_refused_or_sent_again(status, answer):
    """The rule about money: whatever is not on a list is unknown, and never sent again."""
    outcome = classify_push(status, as_bytes(answer))
    code = answer.get("errorCode")
    fault = answer.get("fault")
    throttled = isinstance(fault, dict) and any(
        it in (fault.get("detail") or {}).values() for it in (SPIKE, QUOTA)
    )
    if outcome.kind is PushClass.TOKEN_REJECTED:
        assert code in [*TOKEN_CODES, "401.003.01"]
    elif outcome.kind is PushClass.NOT_SENT:
        assert code in [*NOT_SENT_CODES, "500.001.1001"] or status == 429 or throttled
        assert outcome.retry_after_s
    elif outcome.kind is PushClass.REFUSED:
        documented = code in [*REFUSED_CODES, "500.001.1001", "401.003.01"]
        assert documented or (200 <= status < 300 and "ResponseCode" in answer)
        assert documented or not answer.get("CheckoutRequestID")


@repeatable
@given(statuses, near_answers)
def test_every_outcome_can_be_stored_and_explained(status, answer):
    outcome = classify_push(status, as_bytes(answer))
    for text in (outcome.code, outcome.message, outcome.checkout_request_id):
        assert text is None or is_storable(text)
    if outcome.kind not in (PushClass.ACCEPTED, PushClass.UNKNOWN):
        assert outcome.reason in PUSH_REASONS


def is_storable(text: str) -> bool:
    """Whether Postgres takes it: no NUL, no half of a character, bounded."""
    json.dumps(text, ensure_ascii=False).encode()
    return "\x00" not in text and len(text) <= MAX_MESSAGE_LENGTH


@every_case(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        (7, "7"),
        (False, "False"),
        ("a\x00b", "ab"),
        ("half \ud83d of one", "half ? of one"),
        ("whole \U0001f600", "whole \U0001f600"),
        ("x" * 400, "x" * 300),
        (None, None),
        ([], None),
        ({}, None),
        (["text"], None),
    ],
    ids=lambda value: ascii(value)[:16],
)
def test_a_scalar_becomes_text_that_can_be_stored(value, text):
    assert text_of(value) == text


@repeatable
@given(json_values(st.text() | st.text(st.characters()) | st.integers() | st.none()))
def test_no_value_becomes_text_that_cannot_be_stored(value):
    text = text_of(value)
    assert text is None or is_storable(text)


def test_numbers_of_an_answer_are_never_floats():
    answer = parse_answer(b'{"a": 1.5, "b": 1e3, "c": [0.1], "d": 2}')
    assert answer is not None
    assert not re.search("float", str([type(it) for it in [*answer.values(), *answer["c"]]]))


@pytest.mark.parametrize(
    ("outcome", "kind", "reason"),
    [
        (credentials_refused("400.008.01", "no"), PushClass.REFUSED, "credentials_refused"),
        (not_sent("no connection"), PushClass.NOT_SENT, "not_sent"),
        (not_sent("no budget", retry_after_s=7), PushClass.NOT_SENT, "not_sent"),
        (unknown("a time-out"), PushClass.UNKNOWN, "unknown"),
    ],
)
def test_what_never_got_an_answer_has_its_class_too(outcome, kind, reason):
    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert outcome.message
    assert outcome.checkout_request_id is None


def test_not_sent_says_when_to_try_again():
    assert not_sent("no connection").retry_after_s == 30
    assert not_sent("no budget", retry_after_s=7).retry_after_s == 7


@every_case(
    ("answer", "kind", "refused"),
    [
        ({"errorCode": "404.001.03", "errorMessage": "x"}, "TOKEN_REJECTED", True),
        (
            {"errorCode": "401.003.01", "errorMessage": "Invalid access token"},
            "TOKEN_REJECTED",
            True,
        ),
        ({"errorCode": "401.003.01", "errorMessage": "no apiproduct match"}, "REFUSED", False),
        ({"errorCode": "9", "errorMessage": "Invalid Access Token"}, "UNKNOWN", True),
        (
            {"fault": {"faultstring": "Invalid Access Token", "detail": {"errorcode": "x"}}},
            "UNKNOWN",
            True,
        ),
        (
            {"fault": {"detail": {"errorcode": "keymanagement.service.access_token_expired"}}},
            "UNKNOWN",
            True,
        ),
        ({"fault": {"faultstring": "Invalid Access Token"}}, "UNKNOWN", True),
        ({"errorMessage": "Invalid Access Token"}, "UNKNOWN", True),
        ({"fault": "Invalid Access Token"}, "UNKNOWN", False),
        ({"fault": {"detail": {"errorcode": "x"}}}, "UNKNOWN", False),
    ],
)
def test_a_refusal_of_the_token_is_told_whatever_became_of_the_push(
    answer: dict[str, object], kind: str, refused: bool
) -> None:
    outcome = classify_push(401, as_bytes(answer))

    assert (outcome.kind, outcome.token_refused) == (kind, refused)

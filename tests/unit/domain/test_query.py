import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.collecting import every_case
from harness.data import Answer, load_query
from harness.properties import as_bytes, json_values, repeatable
from mpesa_gateway.domain.query import (
    Asked,
    Known,
    QueryClass,
    QueryOutcome,
    QueryVerdict,
    classify_query,
    judge_query,
)
from mpesa_gateway.domain.results import CATALOGUE

EVERY_STATUS = [200, 400, 401, 404, 429, 500, 503]
FINAL_CODES = [code for code, it in CATALOGUE.items() if code != "0" and it.final_in_query]
_WORDS = [
    "0",
    "1032",
    "4999",
    "7777",
    "",
    "500.001.1001",
    "500.003.02",
    "404.001.03",
    "401.003.01",
    "Invalid Access Token",
    "The transaction is being processed",
    "keymanagement.service.invalid_access_token",
    "policies.ratelimit.SpikeArrestViolation",
]
_VALUES = st.sampled_from(_WORDS) | json_values()
near_answers = st.fixed_dictionaries(
    {},
    optional={
        "ResultCode": _VALUES,
        "ResultDesc": _VALUES,
        "errorCode": _VALUES,
        "errorMessage": _VALUES,
        "fault": _VALUES
        | st.fixed_dictionaries(
            {"detail": st.fixed_dictionaries({"errorcode": _VALUES})},
            optional={"faultstring": _VALUES},
        ),
    },
)


@every_case("answer", load_query(), ids=lambda answer: answer.file)
def test_every_recorded_answer_has_its_class(answer: Answer):
    outcome = classify_query(answer.status, answer.body, Asked(ID))
    assert outcome.kind.name == answer.expected
    assert outcome.code == answer.code


@every_case("code", FINAL_CODES)
def test_a_final_code_is_a_failure_with_its_words(code):
    body = as_bytes({"ResultCode": code, "ResultDesc": "what they say"})
    for status in EVERY_STATUS:
        outcome = classify_query(status, body)
        assert outcome == QueryOutcome(QueryClass.FAILED, code, "what they say")


@every_case("code", ["7777", "100000003", "SFC_IC0004", "00", "0.0", "-1", "", "null"])
def test_a_code_that_is_not_final_in_a_query_is_no_information(code):
    body = as_bytes({"ResultCode": code, "ResultDesc": "what they say"})
    assert classify_query(200, body).kind is QueryClass.NO_INFORMATION


@every_case(
    ("errorcode", "faultstring", "kind"),
    [
        ("policies.ratelimit.SpikeArrestViolation", "Spike", QueryClass.SLOW_DOWN),
        ("policies.ratelimit.QuotaViolation", "Quota", QueryClass.SLOW_DOWN),
        ("keymanagement.service.invalid_access_token", "", QueryClass.TOKEN_REJECTED),
        ("keymanagement.service.access_token_expired", "", QueryClass.TOKEN_REJECTED),
        ("oauth.v2.Whatever", "Invalid Access Token", QueryClass.TOKEN_REJECTED),
        ("steps.javascript.ScriptExecutionFailed", "JavaScript", QueryClass.NO_INFORMATION),
        (None, "Spike arrest violation", QueryClass.NO_INFORMATION),
    ],
)
def test_a_fault_of_the_api_gateway_is_read_by_its_code(errorcode, faultstring, kind):
    fault = {"faultstring": faultstring, "detail": {"errorcode": errorcode}}
    outcome = classify_query(500, as_bytes({"fault": fault}))
    assert outcome.kind is kind
    assert outcome.message == faultstring


@every_case("fault", [None, [], "Spike", {}, {"detail": []}, {"detail": "Spike"}])
def test_a_fault_in_another_shape_is_no_information(fault):
    assert classify_query(500, as_bytes({"fault": fault})).kind is QueryClass.NO_INFORMATION


@repeatable
@given(st.sampled_from(EVERY_STATUS), st.binary(max_size=60) | json_values().map(as_bytes))
@example(200, b"[" * 100_000)
@example(200, b'{"ResultCode": 1e99999999999999999999}')
@example(200, b'{"ResultCode": ' + b"1" * 5000 + b"}")
def test_no_body_makes_it_raise(status, body):
    assert isinstance(classify_query(status, body), QueryOutcome)


@repeatable
@given(st.sampled_from(EVERY_STATUS), near_answers)
def test_paid_is_said_in_one_way_only(status, answer):
    paid = classify_query(status, as_bytes(answer)).kind is QueryClass.PAID
    code = answer.get("ResultCode")
    zero = code == "0" or (isinstance(code, int) and not isinstance(code, bool) and code == 0)
    assert paid == (zero and "errorCode" not in answer)


@repeatable
@given(st.sampled_from(EVERY_STATUS), near_answers)
def test_failed_is_said_only_by_a_final_code(status, answer):
    outcome = classify_query(status, as_bytes(answer))
    if outcome.kind is QueryClass.FAILED:
        assert str(answer["ResultCode"]) in FINAL_CODES
        assert "errorCode" not in answer


def outcome(kind: QueryClass, code: str | None = None) -> QueryOutcome:
    return QueryOutcome(kind, code, "what they say")


@pytest.mark.parametrize("before", [None, "1032", "0"])
def test_paid_is_believed_once_the_prompt_is_over_whatever_was_said_before(before):
    verdict = judge_query(outcome(QueryClass.PAID, "0"), Known(before))
    assert verdict == QueryVerdict(complete=True)


@pytest.mark.parametrize("before", [None, "1032", "0"])
def test_paid_while_the_prompt_is_open_is_asked_again_at_its_end(before):
    verdict = judge_query(outcome(QueryClass.PAID, "0"), Known(before, is_prompt_open=True))
    assert verdict == QueryVerdict(provisional_code="0", is_early=True)


def test_paid_while_the_prompt_is_open_is_believed_where_a_callback_claims_it_too():
    known = Known(is_prompt_open=True, is_claimed_paid=True)
    assert judge_query(outcome(QueryClass.PAID, "0"), known) == QueryVerdict(complete=True)


def test_an_early_paid_that_is_not_repeated_is_forgotten():
    early = judge_query(outcome(QueryClass.PAID, "0"), Known(is_prompt_open=True))
    denied = judge_query(outcome(QueryClass.FAILED, "1032"), Known(early.provisional_code))
    assert denied == QueryVerdict(provisional_code="1032")
    assert judge_query(outcome(QueryClass.FAILED, "1032"), Known("1032")).fail


def test_a_failure_is_believed_when_it_is_said_twice():
    first = judge_query(outcome(QueryClass.FAILED, "1032"), Known())
    assert first == QueryVerdict(provisional_code="1032")
    second = judge_query(outcome(QueryClass.FAILED, "1032"), Known(first.provisional_code))
    assert second.fail


def test_another_failure_starts_again():
    verdict = judge_query(outcome(QueryClass.FAILED, "1037"), Known("1032"))
    assert verdict == QueryVerdict(provisional_code="1037")


def test_still_in_flight_takes_a_failure_back():
    assert judge_query(outcome(QueryClass.IN_FLIGHT, "4999"), Known("1032")) == QueryVerdict()


@every_case(
    "kind",
    [
        QueryClass.NO_INFORMATION,
        QueryClass.SLOW_DOWN,
        QueryClass.TOKEN_REJECTED,
        QueryClass.OTHER_PAYMENT,
    ],
)
@every_case("before", [None, "1032"])
def test_an_answer_without_information_leaves_what_was_said(kind, before):
    # Its code may be that of the failure before: it is no second answer.
    verdict = judge_query(outcome(kind, "1032"), Known(before))
    assert verdict == QueryVerdict(provisional_code=before)


NOTHING = classify_query(500, as_bytes({"errorCode": "500.001.1001", "errorMessage": ""}))
SAME = classify_query(200, as_bytes({"ResultCode": "5000", "ResultDesc": "still processing"}))
WEB_FIREWALL = classify_query(503, b"<html>no</html>")
NOBODY = QueryOutcome(QueryClass.NO_INFORMATION, None, "no answer")
BELIEVED = QueryVerdict(believe_callback=True)


@every_case(
    ("code", "silent_before", "answer", "is_believed"),
    [
        ("5000", 0, NOTHING, False),
        ("5000", 1, NOTHING, True),
        ("5000", 0, SAME, True),
        ("SFC_IC0003", 0, NOTHING, True),
        ("SFC_IC0003", 0, outcome(QueryClass.FAILED, "SFC_IC0003"), False),
        # Nobody spoke for Safaricom, or of another payment.
        ("5000", 5, WEB_FIREWALL, False),
        ("5000", 5, NOBODY, False),
        ("SFC_IC0003", 5, outcome(QueryClass.OTHER_PAYMENT, "SFC_IC0003"), False),
        ("5000", 5, outcome(QueryClass.IN_FLIGHT, "4999"), False),
        # Its code is an HTTP status, and no ResultCode.
        ("500", 0, classify_query(500, b"{}"), False),
    ],
)
def test_a_held_failure_is_believed_when_a_query_agrees_or_denies_it_nothing(
    code, silent_before, answer, is_believed
):
    known = Known(held_failure=code, silent_answers=silent_before)
    assert judge_query(answer, known).believe_callback is is_believed


def test_a_query_that_says_the_same_failure_as_a_held_callback_ends_it():
    said = classify_query(200, as_bytes({"ResultCode": "SFC_IC0003", "ResultDesc": "no"}))
    assert judge_query(said, Known(held_failure="SFC_IC0003")) == BELIEVED


@pytest.mark.parametrize("provisional", ["0", "1032"])
def test_silence_confirms_nothing_once_a_query_has_said_something_else(provisional):
    known = Known(provisional, held_failure="5000", silent_answers=5)
    assert judge_query(NOTHING, known) == QueryVerdict(provisional_code=provisional)


def test_paid_overrules_a_held_failure():
    known = Known(held_failure="5000", silent_answers=5)
    assert judge_query(outcome(QueryClass.PAID, "0"), known) == QueryVerdict(complete=True)


ID, OTHER_ID = "ws_CO_021020261805069708374149", "ws_CO_011220261200000001254799999999"
ASKED = Asked(ID, "2654-4b64")


@every_case(
    ("named", "is_ours"),
    [
        ({}, True),
        ({"CheckoutRequestID": ID}, True),
        ({"CheckoutRequestID": f" {ID} "}, True),
        ({"CheckoutRequestID": None}, True),
        ({"CheckoutRequestID": ID, "MerchantRequestID": "another"}, True),
        ({"MerchantRequestID": "2654-4b64"}, True),
        ({"CheckoutRequestID": OTHER_ID}, False),
        ({"CheckoutRequestID": ID.lower()}, False),
        ({"CheckoutRequestID": ""}, False),
        ({"CheckoutRequestID": 7}, False),
        ({"CheckoutRequestID": [ID]}, False),
        ({"CheckoutRequestID": OTHER_ID, "MerchantRequestID": "2654-4b64"}, False),
        ({"MerchantRequestID": "another"}, False),
        ({"MerchantRequestID": 7}, False),
    ],
)
@every_case("code", ["0", "1032", "4999", 0])
def test_an_answer_is_asked_whom_it_speaks_of(named, is_ours, code):
    body = as_bytes({"ResponseCode": "0", "ResultCode": code, **named})
    kind = classify_query(200, body, ASKED).kind
    assert (kind is QueryClass.OTHER_PAYMENT) is not is_ours
    error = as_bytes({"errorCode": "500.001.1001", "errorMessage": "being processed", **named})
    assert (classify_query(500, error, ASKED).kind is QueryClass.OTHER_PAYMENT) is not is_ours


def test_the_other_id_is_not_compared_where_none_was_learned():
    body = as_bytes({"ResultCode": "0", "MerchantRequestID": "another"})
    assert classify_query(200, body, Asked(ID)).kind is QueryClass.PAID


_OUTCOMES = st.builds(
    outcome, st.sampled_from(list(QueryClass)), st.sampled_from(["0", "1032", "1037", "4999"])
)


@repeatable
@given(st.lists(st.tuples(_OUTCOMES, st.booleans()), max_size=12))
def test_in_any_sequence_a_failure_needs_two_equal_answers_and_nothing_else_between(said):
    provisional, telling = None, None
    for it, is_prompt_open in said:
        verdict = judge_query(it, Known(provisional, is_prompt_open=is_prompt_open))
        assert verdict.complete == (it.kind is QueryClass.PAID and not is_prompt_open)
        assert verdict.fail == (it.kind is QueryClass.FAILED and it == telling)
        if verdict.complete or verdict.fail:
            break
        if it.kind in (QueryClass.FAILED, QueryClass.IN_FLIGHT, QueryClass.PAID):
            telling = it
        provisional = verdict.provisional_code

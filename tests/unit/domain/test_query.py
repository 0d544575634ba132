import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.data import Answer, load_query
from harness.properties import as_bytes, json_values, repeatable
from mpesa_gateway.domain.query import (
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


@pytest.mark.parametrize("answer", load_query(), ids=lambda answer: answer.file)
def test_every_recorded_answer_has_its_class(answer: Answer):
    outcome = classify_query(answer.status, answer.body)
    assert outcome.kind.name == answer.expected
    assert outcome.code == answer.code


@pytest.mark.parametrize("code", FINAL_CODES)
def test_a_final_code_is_a_failure_with_its_words(code):
    body = as_bytes({"ResultCode": code, "ResultDesc": "what they say"})
    for status in EVERY_STATUS:
        outcome = classify_query(status, body)
        assert outcome == QueryOutcome(QueryClass.FAILED, code, "what they say")


@pytest.mark.parametrize("code", ["7777", "100000003", "SFC_IC0004", "00", "0.0", "-1", "", "null"])
def test_a_code_that_is_not_final_in_a_query_is_no_information(code):
    body = as_bytes({"ResultCode": code, "ResultDesc": "what they say"})
    assert classify_query(200, body).kind is QueryClass.NO_INFORMATION


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("fault", [None, [], "Spike", {}, {"detail": []}, {"detail": "Spike"}])
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


def test_paid_is_believed_at_once_whatever_was_said_before():
    for before in (None, "1032"):
        verdict = judge_query(outcome(QueryClass.PAID, "0"), before)
        assert verdict == QueryVerdict(complete=True)


def test_a_failure_is_believed_when_it_is_said_twice():
    first = judge_query(outcome(QueryClass.FAILED, "1032"), None)
    assert first == QueryVerdict(provisional_code="1032")
    second = judge_query(outcome(QueryClass.FAILED, "1032"), first.provisional_code)
    assert second.fail


def test_another_failure_starts_again():
    verdict = judge_query(outcome(QueryClass.FAILED, "1037"), "1032")
    assert verdict == QueryVerdict(provisional_code="1037")


def test_still_in_flight_takes_a_failure_back():
    assert judge_query(outcome(QueryClass.IN_FLIGHT, "4999"), "1032") == QueryVerdict()


@pytest.mark.parametrize(
    "kind", [QueryClass.NO_INFORMATION, QueryClass.SLOW_DOWN, QueryClass.TOKEN_REJECTED]
)
@pytest.mark.parametrize("before", [None, "1032"])
def test_an_answer_without_information_leaves_what_was_said(kind, before):
    # Its code may be that of the failure before: it is no second answer.
    assert judge_query(outcome(kind, "1032"), before) == QueryVerdict(provisional_code=before)


_OUTCOMES = st.builds(
    outcome, st.sampled_from(list(QueryClass)), st.sampled_from(["0", "1032", "1037", "4999"])
)


@repeatable
@given(st.lists(_OUTCOMES, max_size=12))
def test_in_any_sequence_a_failure_needs_two_equal_answers_and_nothing_else_between(outcomes):
    provisional, telling = None, None
    for it in outcomes:
        verdict = judge_query(it, provisional)
        assert verdict.complete == (it.kind is QueryClass.PAID)
        assert verdict.fail == (it.kind is QueryClass.FAILED and it == telling)
        if verdict.complete or verdict.fail:
            break
        if it.kind in (QueryClass.FAILED, QueryClass.IN_FLIGHT):
            telling = it
        provisional = verdict.provisional_code

"""What a query is answered beside the results of test_outcomes.py."""

from __future__ import annotations

import pytest

from daraja_simulator import limiter
from daraja_simulator.limiter import SpikeArrest


def open_payment(caller) -> str:
    return str(caller.push().json()["CheckoutRequestID"])


@pytest.mark.parametrize(
    ("setting", "status", "expected"),
    [
        ("4999", 200, {"ResultCode": "4999"}),
        ("being_processed", 500, {"errorMessage": "The transaction is being processed"}),
        ("empty_500", 500, {"errorCode": "500.001.1001", "errorMessage": ""}),
        ("empty_200", 200, {"errorCode": "500.001.1001", "errorMessage": ""}),
        ("does_not_exist", 500, {"errorMessage": "The transaction does not Exist"}),
        ("invalid_id", 400, {"errorMessage": "Bad Request - Invalid CheckoutRequestID"}),
    ],
)
def test_an_open_prompt_has_many_answers(simulate, setting, status, expected):
    caller = simulate(callback_delay=60, query_while_open=setting)
    answer = caller.query(open_payment(caller))
    assert answer.status_code == status
    assert answer.json().items() >= expected.items()


@pytest.mark.parametrize(
    "changes", [{"CheckoutRequestID": "ws_CO_1"}, {"BusinessShortCode": 60000}]
)
def test_an_unknown_payment_is_an_invalid_id(caller, changes):
    answer = caller.query(open_payment(caller), **changes)
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "400.002.02"
    assert answer.json()["errorMessage"] == "Bad Request - Invalid CheckoutRequestID"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("BusinessShortCode", ""),
        ("Password", ""),
        ("Timestamp", "now"),
        ("CheckoutRequestID", ""),
        ("CheckoutRequestID", 5),
    ],
)
def test_a_wrong_field_is_named(caller, field, value):
    answer = caller.query("ws_CO_1", **{field: value})
    assert answer.json()["errorMessage"] == f"Bad Request - Invalid {field}"


def test_the_password_is_checked(simulate):
    caller = simulate(passkeys={"174379": "other"})
    assert "Wrong credentials" in caller.query("ws_CO_1").json()["errorMessage"]


def test_a_body_that_is_no_object_is_refused(caller):
    answer = caller.post("/mpesa/stkpushquery/v1/query", b"[]")
    assert answer.json()["errorCode"] == "400.002.05"


def test_queries_above_the_rate_are_throttled_per_app(simulate):
    caller = simulate(queries_per_minute=5)
    assert caller.query("ws_CO_1").status_code == 400
    throttled = caller.query("ws_CO_1")
    assert throttled.status_code == 429
    fault = throttled.json()["fault"]
    assert fault["detail"]["errorcode"] == "policies.ratelimit.SpikeArrestViolation"
    assert "messagesPerPeriod=5," in fault["faultstring"]
    caller.new_token("other-app")
    assert caller.query("ws_CO_1").status_code == 400


def test_the_throttle_lets_one_pass_in_each_part_of_a_minute():
    throttle = SpikeArrest()
    times = [0.0, 11.9, 12.0, 23.9, 24.5]
    assert [throttle.allows("app", at, 5) for at in times] == [True, False, True, False, True]
    assert all(throttle.allows("app", 24.6, 0) for _ in range(10))


def test_the_throttle_forgets_when_it_knows_too_many_apps(monkeypatch):
    monkeypatch.setattr(limiter, "MAX_APPS", 2)
    throttle = SpikeArrest()
    assert all(throttle.allows(app, 0, 5) for app in ("a", "b", "c", "a"))


def test_queries_fail_at_random(simulate):
    caller = simulate(query_failure_rate=0.5, seed=7)
    checkout_request_id = open_payment(caller)
    caller.ended()
    codes = [caller.query(checkout_request_id).status_code for _ in range(40)]
    assert set(codes) == {200, 500}
    again = simulate(query_failure_rate=0.5, seed=7)
    checkout_request_id = open_payment(again)
    again.ended()
    assert [again.query(checkout_request_id).status_code for _ in range(40)] == codes


def test_queries_are_in_the_ledger(caller):
    checkout_request_id = open_payment(caller)
    caller.ended()
    caller.query(checkout_request_id)
    caller.query("ws_CO_1")
    caller.query("ws_CO_1", token="wrong")
    known, unknown, refused = caller.simulator.ledger()["queries"]
    assert known["checkout_request_id"] == checkout_request_id
    assert known["phone"] == "254700000000"
    assert known["callback_url"] == caller.callback_url
    assert known["answer_status"] == 200
    assert '"ResultCode": "0"' in known["answer_body"]
    assert (unknown["phone"], unknown["answer_status"]) == (None, 400)
    assert (refused["app_key"], refused["answer_status"]) == (None, 404)

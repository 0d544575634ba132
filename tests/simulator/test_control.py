"""What a tester changes while the simulator runs."""

from __future__ import annotations

from daraja_simulator.outcomes import OUTCOMES
from harness.collecting import every_case


def test_the_index_lists_outcomes_endpoints_and_settings(simulate):
    caller = simulate(
        callback_delay=60, credentials={"key": "hidden-1"}, passkeys={"174379": "hidden-2"}
    )
    answer = caller.send("GET", "/")
    index = answer.json()
    assert index["name"] == "daraja-simulator"
    assert [each["digits"] for each in index["outcomes"]] == [each.digits for each in OUTCOMES]
    assert set(index["outcomes"][0]) == {"digits", "outcome", "what"}
    assert "POST /mpesa/stkpush/v1/processrequest" in index["endpoints"]
    assert index["settings"]["callback_delay"] == 60
    assert index["settings"]["credentials"] == ["key"]
    assert index["settings"]["passkeys"] == ["174379"]
    assert index["settings"]["max_records"] == 200_000
    assert index["payments_under_way"] == 0
    assert index["records"]["pushes"] == {"recorded": 0, "kept": 0}
    assert "hidden" not in answer.text


def test_health(caller):
    answer = caller.send("GET", "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_every_endpoint_of_the_index_exists(caller):
    for endpoint in caller.send("GET", "/").json()["endpoints"]:
        method, path = endpoint.split(" ")
        answer = caller.send(method, path)
        assert answer.status_code not in (404, 405) or "Authentication" in answer.text


def test_settings_change_at_run_time(caller):
    answer = caller.send("PATCH", "/settings", json={"callback_delay": "60s", "seed": None})
    assert answer.status_code == 200
    assert answer.json()["callback_delay"] == 60
    caller.push()
    assert caller.push().json()["errorCode"] == "500.001.1001"
    assert caller.send("GET", "/").json()["payments_under_way"] == 1


@every_case(
    ("changes", "name"),
    [
        ({"callback_delay": -1}, "callback_delay"),
        ({"callback_delay": "soon"}, "callback_delay"),
        ({"push_failure_rate": 2}, "push_failure_rate"),
        ({"token_invalidation": "no"}, "token_invalidation"),
        ({"queries_per_minute": 1.5}, "queries_per_minute"),
        ({"query_while_open": "what"}, "query_while_open"),
        ({"credentials": {}}, "credentials"),
        ({"port": 1}, "port"),
        ({"colour": "green"}, "colour"),
        ({"public": 1}, "public"),
        ([], "body"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_changes(caller, changes, name):
    before = caller.send("GET", "/").json()["settings"]
    changes = changes | {"late_delay": 5} if isinstance(changes, dict) else changes
    answer = caller.send("PATCH", "/settings", json=changes)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(name + " ")
    assert caller.send("GET", "/").json()["settings"] == before


def test_every_wrong_setting_is_named(caller):
    answer = caller.send("PATCH", "/settings", json={"colour": 1, "seed": -1, "port": 1})
    for name in ("colour is not a setting", "port is fixed at start", "seed must be"):
        assert name in answer.json()["error"]


@every_case(("method", "path"), [("PATCH", "/settings"), ("PUT", "/next"), ("PUT", "/next-query")])
@every_case("body", [b"{", b"5", b"[" * 30_000])
def test_a_body_that_is_no_object_is_an_error(caller, method, path, body):
    answer = caller.send(method, path, data=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("body must be ")


def test_the_next_push_may_have_fixed_ids(caller, receiver):
    ids = {"CheckoutRequestID": "ws_CO_191220191020363925", "MerchantRequestID": "29115-1-1"}
    assert caller.send("PUT", "/next", json=ids).status_code == 204
    assert caller.push().json().items() >= ids.items()
    caller.ended()
    assert receiver.received[0].callback.items() >= ids.items()
    assert caller.query(ids["CheckoutRequestID"]).json()["ResultCode"] == "0"
    assert caller.push().json()["CheckoutRequestID"] != ids["CheckoutRequestID"]
    again = caller.send("PUT", "/next", json=ids)
    assert again.status_code == 409


def test_the_next_push_may_have_another_outcome(caller, receiver):
    caller.send("PUT", "/next", json={"outcome": "wrong_pin"})
    caller.push()
    caller.ended()
    caller.push()
    caller.ended()
    assert [each.callback["ResultCode"] for each in receiver.received] == [2001, 0]


def test_a_refused_push_does_not_use_up_the_next(caller, receiver):
    caller.send("PUT", "/next", json={"outcome": "wrong_pin"})
    caller.push(Amount=0)
    caller.push(token="wrong")
    caller.push()
    caller.ended()
    assert receiver.received[0].callback["ResultCode"] == 2001


def test_the_next_push_may_have_any_answer(caller, receiver):
    answer = {"status": 502, "body": "<html>", "content_type": "text/html"}
    caller.send("PUT", "/next", json={"answer": answer})
    got = caller.push()
    assert (got.status_code, got.text, got.headers["Content-Type"]) == (502, "<html>", "text/html")
    ledger = caller.ended()
    assert ledger["pushes"][0]["accepted"] is False
    assert ledger["debits"] == []
    assert not receiver.received


def test_a_payment_may_go_on_behind_any_answer(caller, receiver):
    answer = {"status": 500, "body": {"errorCode": "x"}, "accepted": True}
    caller.send("PUT", "/next", json={"answer": answer})
    got = caller.push()
    assert (got.status_code, got.json()) == (500, {"errorCode": "x"})
    assert len(caller.ended()["debits"]) == len(receiver.received) == 1


def test_the_next_can_be_taken_back(caller):
    caller.send("PUT", "/next", json={"answer": {"status": 500}})
    caller.send("PUT", "/next", json={})
    assert caller.push().status_code == 200


def test_the_next_query_may_have_any_answer(caller):
    checkout_request_id = caller.push().json()["CheckoutRequestID"]
    caller.ended()
    caller.send("PUT", "/next-query", json={"status": 503, "body": "down"})
    assert caller.query(checkout_request_id, token="wrong").status_code == 404
    answer = caller.query(checkout_request_id)
    assert (answer.status_code, answer.text) == (503, "down")
    assert caller.query(checkout_request_id).json()["ResultCode"] == "0"


@every_case(
    ("path", "body", "name"),
    [
        ("/next", {"colour": 1}, "colour"),
        ("/next", {"outcome": "rich"}, "outcome"),
        ("/next", {"outcome": ["paid"]}, "outcome"),
        ("/next", {"CheckoutRequestID": "a b"}, "CheckoutRequestID"),
        ("/next", {"MerchantRequestID": 5}, "MerchantRequestID"),
        ("/next", {"answer": 500}, "answer"),
        ("/next", {"answer": {"status": "500"}}, "status"),
        ("/next", {"answer": {"accepted": 1}}, "accepted"),
        ("/next", {"answer": {"headers": {}}}, "headers"),
        ("/next-query", {"status": 99}, "status"),
        ("/next-query", {"status": True}, "status"),
        ("/next-query", {"content_type": "a\r\nb"}, "content_type"),
        ("/next-query", {"accepted": True}, "accepted"),
    ],
)
def test_a_wrong_field_is_named(caller, path, body, name):
    answer = caller.send("PUT", path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(name + " ")


def test_bodies_have_a_limit(caller):
    assert caller.send("PATCH", "/settings", data=b" " * 65_537).status_code == 413

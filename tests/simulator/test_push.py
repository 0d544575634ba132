"""What a push must look like, and when a right one is refused."""

from __future__ import annotations

import pytest

from daraja_simulator import simulator as simulator_module
from harness.collecting import every_case

PASSKEY = "bfb279f9aa9bdbcf158e97dd71a467cd2e0c893059b10f78e6b72ada1ed2c919"
LONG_URL = "https://shop.example/" + "a" * 1_100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("BusinessShortCode", ...),
        ("BusinessShortCode", "1743"),
        ("BusinessShortCode", "17437a"),
        ("BusinessShortCode", True),
        ("BusinessShortCode", 174379.0),
        ("Password", ...),
        ("Password", " "),
        ("Password", 5),
        ("Timestamp", ...),
        ("Timestamp", "2026100218110"),
        ("Timestamp", "20261302181102"),
        ("TransactionType", ...),
        ("TransactionType", "CustomerPayBill"),
        ("TransactionType", ["CustomerPayBillOnline"]),
        ("Amount", ...),
        ("Amount", 0),
        ("Amount", -1),
        ("Amount", 250_001),
        ("Amount", 10.0),
        ("Amount", "10.00"),
        ("Amount", True),
        ("Amount", None),
        ("PartyA", ...),
        ("PartyA", "0712345678"),
        ("PartyB", ...),
        ("PartyB", "600000"),
        ("PhoneNumber", ...),
        ("PhoneNumber", "+254712345678"),
        ("PhoneNumber", "254712345678 "),
        ("CallBackURL", ...),
        ("CallBackURL", "ftp://shop.example/back"),
        ("CallBackURL", "https://shop.example/a b"),
        ("CallBackURL", "https://Shop.example/back"),
        ("CallBackURL", "https:///back"),
        ("CallBackURL", "https://shop.example:70000/back"),
        ("CallBackURL", "https://[::1/back"),
        ("CallBackURL", LONG_URL),
        ("AccountReference", ...),
        ("AccountReference", ""),
        ("AccountReference", "1234567890123"),
        ("TransactionDesc", "12345678901234"),
    ],
)
def test_a_wrong_field_is_named(caller, field, value):
    answer = caller.push(**{field: value})
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "400.002.02"
    assert answer.json()["errorMessage"] == f"Bad Request - Invalid {field}"
    (push,) = caller.ended()["pushes"]
    assert push["accepted"] is False
    assert push["answer_status"] == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"BusinessShortCode": 174379, "PartyB": 174379, "PartyA": 254700000000},
        {"Amount": "1"},
        {"Amount": 250_000},
        {"TransactionDesc": ...},
        {"TransactionDesc": ""},
        {"TransactionType": "CustomerBuyGoodsOnline", "PartyB": "600000"},
        {"CallBackURL": "http://127.0.0.1:9/x?y=1"},
    ],
)
def test_what_daraja_takes_is_taken(caller, changes):
    assert caller.push(**changes).status_code == 200


@every_case("body", [b"", b"{", b"[]", b"\xff", b"[" * 30_000])
def test_a_body_that_is_no_object_is_refused(caller, body):
    answer = caller.post("/mpesa/stkpush/v1/processrequest", body)
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "400.002.05"


def test_a_body_above_the_limit_is_refused(caller):
    answer = caller.post("/mpesa/stkpush/v1/processrequest", b" " * 65_537)
    assert answer.status_code == 413


def test_a_refused_push_keeps_what_it_said(caller):
    caller.push("254700000000", Amount="many", AccountReference="x" * 5_000, CallBackURL=["no"])
    (push,) = caller.ended()["pushes"]
    assert push["app_key"] == "key"
    assert push["phone"] == "254700000000"
    assert push["amount"] is None
    assert push["callback_url"] is None
    assert push["account_reference"] == "x" * 1_024


def test_a_push_with_a_wrong_token_is_in_the_ledger(caller):
    caller.push(token="wrong")
    (push,) = caller.ended()["pushes"]
    assert push["app_key"] is None
    assert push["answer_status"] == 404


def test_the_password_must_be_made_of_the_passkey(simulate):
    caller = simulate(passkeys={"174379": PASSKEY})
    assert caller.push().status_code == 200
    wrong = caller.push("254700000001", Timestamp="20261002181103")
    assert wrong.status_code == 500
    assert wrong.json()["errorCode"] == "500.001.1001"
    assert wrong.json()["errorMessage"] == "[MerchantValidate] - Wrong credentials"
    unknown = caller.push("254700000001", BusinessShortCode="600000", PartyB="600000")
    assert unknown.json()["errorMessage"] == "Merchant does not exist"


def test_a_phone_has_one_prompt_of_a_short_code(simulate):
    caller = simulate(callback_delay=60)
    assert caller.push().status_code == 200
    locked = caller.push()
    assert locked.status_code == 500
    assert locked.json()["errorCode"] == "500.001.1001"
    assert locked.json()["errorMessage"].startswith("Unable to lock subscriber, a transaction is")
    assert caller.push(BusinessShortCode="600000", PartyB="600000").status_code == 200
    assert caller.push("254700000009").status_code == 200


def test_the_lock_ends_with_the_prompt(caller):
    for _ in range(3):
        assert caller.push().status_code == 200
        caller.ended()
    assert len(caller.ended()["debits"]) == 3


def test_a_late_callback_holds_no_lock(simulate):
    caller = simulate(late_delay=60)
    assert caller.push("254700003030").status_code == 200
    caller.wait_until(lambda: caller.simulator.ledger()["debits"])
    caller.wait_until(lambda: caller.push("254700003030").status_code == 200)


def test_the_lock_can_be_switched_off(simulate):
    caller = simulate(subscriber_lock=False, callback_delay=0.05)
    assert [caller.push().status_code for _ in range(3)] == [200, 200, 200]
    assert len(caller.ended()["debits"]) == 3
    caller.simulator.change(subscriber_lock=True)
    assert caller.push().status_code == 200


def test_pushes_above_the_limit_are_answered_busy(simulate, monkeypatch):
    monkeypatch.setattr(simulator_module, "MAX_PAYMENTS_UNDER_WAY", 1)
    caller = simulate(callback_delay=60)
    assert caller.push("254700000001").status_code == 200
    assert caller.push("254700000002").json()["errorCode"] == "500.003.02"


def test_paths_and_verbs_that_do_not_exist_are_errors(caller):
    missing = caller.send("POST", "/mpesa/stkpush/v2/processrequest")
    assert (missing.status_code, missing.json()["errorCode"]) == (404, "404.001.01")
    wrong = caller.send("GET", "/mpesa/stkpush/v1/processrequest")
    assert (wrong.status_code, wrong.json()["errorCode"]) == (405, "405.001")

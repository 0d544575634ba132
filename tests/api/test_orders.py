"""One order is paid once, whatever keys ask for it; what a merchant says of an order comes back."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from harness.bodies import callback_body
from harness.callbacks import applied
from harness.collecting import every_case
from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from harness.problems import assert_problem
from harness.settings import API_KEY
from harness.settling import SILENT, settle

PAID, CANCELLED, UNKNOWN = "254712340000", "254712341032", "254712345041"
ORDER = {"order_id": "INV-1042"}
CUSTOM = {"till": "7", "waiter": "Achieng' 🛒"}


def open_order(answer: requests.Response, transaction_id: str) -> None:
    document = assert_problem(answer, 409, "order-open")
    assert document["transaction_id"] == transaction_id
    assert document["retry_after"] >= 1


def count(gateway: Gateway) -> int:
    return len(gateway.rows("SELECT FROM transactions"))


def at_once(gateway: Gateway, phones: list[str]) -> list[requests.Response]:
    """A request for the same order from each phone, each with a key and a connection of its own."""

    def start(phone: str) -> requests.Response:
        return requests.post(
            f"{gateway.url}/initiate",
            json=gateway.body(phone, **ORDER),
            headers={"X-Internal-Secret": API_KEY},
            timeout=60,
        )

    with ThreadPoolExecutor(len(phones)) as threads:
        return list(threads.map(start, phones))


@pytest.mark.parametrize(
    "phones", [[f"25471{it:03d}4042" for it in range(50)], [SILENT] * 50], ids=["phones", "phone"]
)
def test_fifty_clients_with_one_order_and_fifty_keys_make_one_push(
    gateway: Gateway, phones: list[str]
) -> None:
    answers = at_once(gateway, phones)

    assert sorted(it.status_code for it in answers) == [201] + [409] * 49
    first = next(it for it in answers if it.status_code == 201)
    assert len(gateway.simulator.ledger()["pushes"]) == count(gateway) == 1
    for answer in answers:
        if answer is not first:
            open_order(answer, first.json()["transaction_id"])


def test_a_paid_order_stays_paid_and_names_its_receipt(gateway: Gateway) -> None:
    transaction_id = gateway.pay(PAID, **ORDER)
    applied(gateway, transaction_id)

    document = assert_problem(gateway.initiate(SILENT, **ORDER), 409, "order-paid")

    assert document["transaction_id"] == transaction_id
    assert document["receipt"] == gateway.transaction(transaction_id)["receipt"]
    assert "retry_after" not in document
    assert count(gateway) == 1


def test_an_order_whose_payment_failed_may_be_tried_again(gateway: Gateway) -> None:
    first = gateway.pay(CANCELLED, **ORDER)
    open_order(gateway.initiate(SILENT, **ORDER), first)
    applied(gateway, first)
    second = gateway.pay(SILENT, **ORDER)

    assert gateway.transaction(first)["status"] == "FAILED"
    listed = gateway.get("/transactions", order_id="INV-1042").json()["items"]
    assert [it["transaction_id"] for it in listed] == [second, first]


def test_a_push_whose_outcome_is_unknown_keeps_its_order_shut(gateway: Gateway) -> None:
    transaction_id = gateway.pay(UNKNOWN, **ORDER)
    gateway.clock.advance(minutes=10)

    answer = gateway.initiate(SILENT, **ORDER)

    open_order(answer, transaction_id)
    assert answer.json()["retry_after"] == 60, "no prompt is open any more"


@pytest.mark.parametrize("phone", ["254712344000", "254712345002"], ids=["refused", "not sent"])
def test_a_push_that_never_reached_the_phone_leaves_the_order_free(
    gateway: Gateway, phone: str
) -> None:
    assert gateway.initiate(phone, **ORDER).status_code in {502, 503}
    gateway.pay(SILENT, **ORDER)


def test_an_order_that_was_paid_after_it_had_failed_stays_shut_until_somebody_looked(
    gateway: Gateway,
) -> None:
    transaction_id = gateway.pay(SILENT, **ORDER)
    checkout = gateway.checkout_request_id(SILENT)
    settle(gateway, callback_body(checkout, code=1032))
    settle(gateway, callback_body(checkout))

    answer = gateway.initiate(PAID, **ORDER)

    open_order(answer, transaction_id)
    assert "money may have been taken" in answer.json()["detail"]


def test_a_late_success_of_a_failed_attempt_is_told_when_another_one_has_paid(
    gateway: Gateway,
) -> None:
    """The wall of orders never stands between a callback and its row."""
    first = gateway.pay(SILENT, **ORDER)
    checkout, path = gateway.checkout_request_id(SILENT), gateway.callback_path(SILENT)
    settle(gateway, callback_body(checkout, code=1032))
    second = gateway.pay(PAID, **ORDER)
    applied(gateway, second)
    gateway.post(path, callback_body(checkout, receipt="UJ22T8IYOX"))
    gateway.work()

    (conflict,) = gateway.transaction(first)["conflicts"]
    assert (conflict["kind"], conflict["receipt"]) == ("paid_after_failed", "UJ22T8IYOX")
    assert gateway.transaction(second)["status"] == "COMPLETED"


def test_a_replay_of_the_key_comes_first(gateway: Gateway) -> None:
    key = {"idempotency_key": str(uuid.uuid4())}
    first = gateway.initiate(PAID, **key, **ORDER, custom_data=CUSTOM)
    applied(gateway, first.json()["transaction_id"])

    again = gateway.initiate(PAID, **key, **ORDER, custom_data=dict(reversed(CUSTOM.items())))
    assert (again.status_code, again.json()) == (201, first.json())
    for changed in ({"order_id": "INV-1043"}, {"order_id": None}, {"custom_data": {"till": "8"}}):
        body: dict[str, Any] = {**key, **ORDER, "custom_data": CUSTOM, **changed}
        assert_problem(gateway.initiate(PAID, **body), 422, "key-reused")


def test_an_open_order_is_said_before_an_open_prompt_and_before_limits(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT, **ORDER)
    open_order(gateway.initiate(SILENT, **ORDER), transaction_id)
    open_order(gateway.initiate(SILENT, amount="200000", **ORDER), transaction_id)


def test_orders_are_compared_exactly_and_belong_to_their_merchant(
    gateways: Gateways, tmp_path: Path
) -> None:
    write_merchant(tmp_path, "duka.json", name="shops/duka", key="key-of-duka")
    with gateways.start(merchants_dir=str(tmp_path)) as gateway:
        texts = ["INV-1042", "inv-1042", " INV-1042", "INV-1042 ", "\uff29NV-1042"]
        for number, text in enumerate(texts):
            gateway.pay(f"25471{number:03d}4042", order_id=text)
        other = gateway.initiate("254722344042", key="key-of-duka", **ORDER)

        assert other.status_code == 201
        assert gateway.get("/transactions", key="key-of-duka", order_id="inv-1042").json() == {
            "items": [],
            "next": None,
        }


def test_what_was_sent_comes_back_in_the_payment_and_in_its_webhook(gateway: Gateway) -> None:
    transaction_id = gateway.pay(PAID, **ORDER, custom_data=CUSTOM)
    applied(gateway, transaction_id)
    view = gateway.transaction(transaction_id)
    told = gateway.receiver.requests[-1].verify(API_KEY)

    for said in (view, told):
        assert (said["order_id"], said["custom_data"]) == ("INV-1042", CUSTOM)


def test_without_an_order_nothing_is_said_of_one(gateway: Gateway) -> None:
    absent: list[dict[str, Any]] = [
        {},
        {"order_id": None, "custom_data": None},
        {"custom_data": {}},
    ]
    for nothing in absent:
        gateway.clock.advance(minutes=5)
        transaction_id = gateway.pay(SILENT, **nothing)
        view = gateway.transaction(transaction_id)
        assert (view["order_id"], view["custom_data"]) == (None, {})


@every_case(
    ("field", "value"),
    [
        ("order_id", ""),
        ("order_id", "a" * 65),
        ("order_id", "a\0b"),
        ("order_id", "\ud800"),
        ("order_id", 42),
        ("custom_data", {str(number): "a" for number in range(17)}),
        ("custom_data", {"a": {"b": "c"}}),
        ("custom_data", {"a": "b\0"}),
        ("custom_data", {"\udfff": "b"}),
        ("custom_data", {"a": 1}),
        ("custom_data", []),
    ],
)
def test_a_bad_order_is_a_bad_field_and_creates_nothing(
    gateway: Gateway, field: str, value: Any
) -> None:
    assert_problem(gateway.initiate(SILENT, **{field: value}), 400, "invalid-input", field)
    assert count(gateway) == 0


def test_a_bad_order_in_a_list_is_a_bad_parameter(gateway: Gateway) -> None:
    answer = gateway.get("/transactions", order_id="a" * 65)
    assert_problem(answer, 400, "invalid-input", "order_id")

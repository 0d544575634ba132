from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from harness.clock import NOON
from harness.collecting import every_case
from harness.factories import make_request
from mpesa_gateway.domain.order import (
    MAX_CUSTOM_KEYS,
    OPEN_ORDER_RETRY_S,
    Attempt,
    parse_custom_data,
    parse_order_id,
    refuse_second,
)
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.errors import InvalidInputError, OrderOpenError, OrderPaidError

ID = uuid.UUID("019c1000-0000-7000-8000-000000000001")
SURROGATE = "\ud800"


@every_case("text", ["1", "INV/2026-00042", "a" * 64, " é ", "🛒" * 64, "\n", "'; --", "\u0661"])
def test_an_order_id_is_any_short_text_and_stays_as_it_is(text: str) -> None:
    assert parse_order_id(text) == text


@every_case("value", ["", "a" * 65, "a\0b", SURROGATE, 42, 4.2, True, ["a"], {"a": "b"}, None])
def test_what_is_no_order_id_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="order_id: must be a text of 1 to 64"):
        parse_order_id(value)


@every_case(
    "value",
    [
        {},
        {"a": ""},
        {"till": "7", "waiter": "Achieng'", "é": "🛒" * 256},
        {f"{number:064}": "b" * 256 for number in range(MAX_CUSTOM_KEYS)},
    ],
)
def test_custom_data_is_a_few_texts(value: dict[str, str]) -> None:
    assert parse_custom_data(value) == value


@every_case(
    ("value", "words"),
    [
        ([], "an object of at most 16 texts"),
        ("a", "an object of at most 16 texts"),
        (None, "an object of at most 16 texts"),
        ({str(number): "a" for number in range(17)}, "an object of at most 16 texts"),
        ({"": "a"}, "names must have 1 to 64"),
        ({"a" * 65: "a"}, "names must have 1 to 64"),
        ({"a\0": "a"}, "names must have 1 to 64"),
        ({SURROGATE: "a"}, "names must have 1 to 64"),
        ({"a": "b" * 257}, "values must be texts of at most 256"),
        ({"a": "b\0"}, "values must be texts of at most 256"),
        ({"a": SURROGATE}, "values must be texts of at most 256"),
        ({"a": None}, "values must be texts of at most 256"),
        ({"a": 1}, "values must be texts of at most 256"),
        ({"a": True}, "values must be texts of at most 256"),
        ({"a": {"b": "c"}}, "values must be texts of at most 256"),
        ({"a": ["b"]}, "values must be texts of at most 256"),
    ],
)
def test_what_is_no_custom_data_is_refused(value: object, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"custom_data: .*{words}"):
        parse_custom_data(value)


def test_a_free_order_may_be_asked_for() -> None:
    refuse_second(None, NOON)


def test_a_paid_order_names_its_payment_and_receipt() -> None:
    with pytest.raises(OrderPaidError) as refused:
        refuse_second(Attempt(ID, Status.COMPLETED, "UJQ1ABCDE9", NOON), NOON)
    assert (refused.value.transaction_id, refused.value.receipt) == (ID, "UJQ1ABCDE9")
    assert refused.value.retry_after_s is None


@every_case(
    ("status", "prompt_until", "retry_after_s"),
    [
        (Status.PENDING, NOON + timedelta(seconds=89.2), 90),
        (Status.PENDING, NOON + timedelta(milliseconds=1), 1),
        (Status.PENDING, NOON, OPEN_ORDER_RETRY_S),
        (Status.PENDING, NOON - timedelta(days=1), OPEN_ORDER_RETRY_S),
        (Status.FAILED, None, OPEN_ORDER_RETRY_S),
    ],
)
def test_an_open_order_says_when_to_ask_again(
    status: Status, prompt_until: Any, retry_after_s: int
) -> None:
    with pytest.raises(OrderOpenError) as refused:
        refuse_second(Attempt(ID, status, None, prompt_until), NOON)
    assert (refused.value.transaction_id, refused.value.retry_after_s) == (ID, retry_after_s)


def test_order_and_custom_data_belong_to_what_a_key_means() -> None:
    def sha256(**fields: Any) -> bytes:
        return make_request(idempotency_key=ID, **fields).sha256()

    plain = sha256()
    assert sha256(order_id=None, custom_data={}) == plain == sha256(custom_data=None)
    assert sha256(custom_data={"a": "b", "c": "d"}) == sha256(custom_data={"c": "d", "a": "b"})
    others = [
        sha256(order_id="a"),
        sha256(order_id="A"),
        sha256(custom_data={"order_id": "a"}),
        sha256(order_id="a", custom_data={"b": "c"}),
        sha256(custom_data={"a": "b"}),
    ]
    assert len({plain, *others}) == 1 + len(others)

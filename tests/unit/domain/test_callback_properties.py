"""Callbacks by chance: whatever comes, it is a callback or unreadable."""

import contextlib
import json
import random
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from harness.bodies import ITEMS, body_with, item, with_item
from harness.factories import CHECKOUT_REQUEST_ID, RECEIPT, make_callback
from harness.properties import as_bytes, json_values, repeatable
from mpesa_gateway.domain.callback import (
    CallbackUnreadableError,
    StkCallback,
    parse_stk_callback,
)

NAMES = [it["Name"] for it in ITEMS]

members = st.fixed_dictionaries(
    {},
    optional={
        "MerchantRequestID": json_values(),
        "CheckoutRequestID": st.just(CHECKOUT_REQUEST_ID) | json_values(),
        "ResultCode": st.sampled_from([0, "0", 1032, "SFC_IC0003"]) | json_values(),
        "ResultDesc": json_values(),
        "CallbackMetadata": json_values()
        | st.fixed_dictionaries(
            {
                "Item": st.lists(
                    st.fixed_dictionaries(
                        {},
                        optional={
                            "Name": st.sampled_from(NAMES) | json_values(),
                            "Value": st.sampled_from([10, "10.00", RECEIPT]) | json_values(),
                        },
                    ),
                    max_size=6,
                )
            }
        ),
    },
)
near_bodies = members.map(lambda it: as_bytes({"Body": {"stkCallback": it}}))
TEXTS_OF_A_CALLBACK = (
    "checkout_request_id",
    "merchant_request_id",
    "result_code",
    "result_desc",
    "receipt",
    "transaction_date",
    "phone",
)


@repeatable
@given(st.binary(max_size=200) | json_values().map(as_bytes) | near_bodies)
@example(b'{"Body":{"stkCallback":{"CheckoutRequestID":"a","ResultCode":1e99999999999999999999}}}')
@example(b'{"Body":{"stkCallback":{"CheckoutRequestID":"a","ResultCode":%s}}}' % (b"1" * 5000))
@example(b'{"Body":{"stkCallback":{"CheckoutRequestID":"a","ResultCode":%s}}}' % (b"1" * 4000))
@example(b'{"Body":{"stkCallback":{"CheckoutRequestID":"a","ResultCode":NaN}}}')
@example(b"\xff\xfe\x00")
def test_whatever_comes_it_is_a_callback_or_unreadable(sent):
    try:
        read = parse_stk_callback(sent)
    except CallbackUnreadableError:
        return
    for name in TEXTS_OF_A_CALLBACK:
        text = getattr(read, name)
        if text is not None:
            # What Postgres takes: bounded, no NUL, no half of a character.
            assert len(text) <= 300
            assert "\x00" not in text
            assert text.encode().decode() == text
    assert type(read.amount) in (Decimal, type(None))
    assert read.amount is None or read.amount.is_finite()
    assert not any(isinstance(value, float) for value in read.metadata().values())
    # The merchant's webhook carries it: it must be JSON in UTF-8.
    assert json.dumps(read.metadata(), ensure_ascii=False).encode()


@repeatable
@given(near_bodies, st.integers(0, 400), st.binary(max_size=3))
def test_damage_on_the_way_makes_it_unreadable_or_a_callback_and_nothing_else(sent, at, damage):
    for damaged in (sent[:at], sent[:at] + damage + sent[at + 1 :]):
        with contextlib.suppress(CallbackUnreadableError):
            assert isinstance(parse_stk_callback(damaged), StkCallback)


extra_items = st.lists(
    st.fixed_dictionaries(
        {"Name": st.text(max_size=12).filter(lambda name: name not in NAMES)},
        optional={"Value": json_values(), "Extra": json_values()},
    )
    | json_values().filter(lambda it: not isinstance(it, dict)),
    max_size=5,
).filter(lambda it: "NaN" not in json.dumps(it) and "Infinity" not in json.dumps(it))


@repeatable
@given(extra_items, st.randoms(use_true_random=False))
def test_unknown_items_are_ignored_and_order_does_not_matter(extra, chance: random.Random):
    items = [*ITEMS, *extra, *ITEMS[: chance.randrange(5)]]
    chance.shuffle(items)
    assert parse_stk_callback(body_with(items)) == make_callback()


@repeatable
@given(st.permutations(["Amount", "MpesaReceiptNumber", "TransactionDate", "PhoneNumber"]))
def test_two_different_values_are_no_value_in_any_order(names):
    contradicted = names[0]
    values = {it["Name"]: it.get("Value") for it in ITEMS}
    items = [item(name, values[name]) for name in names] + [item(contradicted, 7)]
    metadata = parse_stk_callback(body_with(items)).metadata()
    assert metadata == parse_stk_callback(body_with(items[::-1])).metadata()
    assert [name for name, value in metadata.items() if value is None] == [contradicted]


@repeatable
@given(st.integers(0, 10**15 - 1))
def test_an_amount_is_the_same_number_in_every_spelling(number):
    spellings = [number, str(number), f"{number}.00"]
    assert {with_item("Amount", spelling).amount for spelling in spellings} == {Decimal(number)}

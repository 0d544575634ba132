import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.collecting import every_case
from harness.properties import json_values, repeatable
from mpesa_gateway.domain.amount import (
    MAX_AMOUNT,
    amount_text,
    parse_amount,
    parse_reported_amount,
)
from mpesa_gateway.errors import InvalidInputError

LARGEST = 10**18 - 1


@every_case(
    ("value", "amount"),
    [
        ("1", 1),
        ("10", 10),
        ("10.0", 10),
        ("10.00", 10),
        ("250000", 250_000),
        (str(LARGEST), LARGEST),
        (1, 1),
        (10, 10),
        (LARGEST, LARGEST),
        (Decimal(10), 10),
        (Decimal("10.0000"), 10),
        (Decimal("1E+1"), 10),
        (Decimal("1E+17"), 10**17),
    ],
)
def test_whole_shillings_are_read_in_every_spelling(value, amount):
    parsed = parse_amount(value)
    assert isinstance(parsed, Decimal)
    assert parsed == amount
    # "10.00" and 10 are one amount in text too, so that they have one fingerprint.
    assert str(parsed) == str(amount)


@every_case(
    "value",
    [
        "",
        " ",
        "0",
        "00",
        "0.00",
        "-1",
        "+1",
        "01",
        " 10",
        "10 ",
        "10\n",
        "10.",
        ".5",
        "0.5",
        "10.5",
        "10.01",
        "10.000",
        "1e1",
        "1E+1",
        "1,000",
        "1_000",
        "0x10",
        "KES 10",
        "ten",
        "NaN",
        "Infinity",
        "\u0661\u0660",
        "\uff11\uff10",
        "9" * 19,
        "1" * 5000,
        0,
        -1,
        10**18,
        10**4000,
        Decimal(0),
        Decimal(-1),
        Decimal("10.5"),
        Decimal("1E-999999"),
        Decimal("1E+18"),
        Decimal("1E+999999"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("-Infinity"),
        True,
        False,
        None,
        10.0,
        b"10",
        ["10"],
        {"amount": 10},
    ],
    ids=lambda value: repr(value)[:24],
)
def test_anything_else_is_refused_and_the_field_is_named(value):
    with pytest.raises(InvalidInputError) as refused:
        parse_amount(value)
    assert [problem.field for problem in refused.value.problems] == ["amount"]


@repeatable
@given(st.integers(1, LARGEST))
def test_all_spellings_of_an_amount_are_equal(number):
    spellings = [number, str(number), f"{number}.0", f"{number}.00", Decimal(f"{number}.00")]
    assert {str(parse_amount(spelling)) for spelling in spellings} == {str(number)}
    assert amount_text(parse_amount(number)) == str(number)


@repeatable
@given(st.decimals(allow_nan=False, allow_infinity=False, places=2))
def test_a_fraction_is_never_rounded(value):
    try:
        parsed = parse_amount(value)
    except InvalidInputError:
        assert value <= 0 or value != int(value) or value > LARGEST
    else:
        assert parsed == value


@repeatable
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("0123456789.eE+- "), max_size=24))
def test_a_text_is_refused_or_means_what_it_says(text):
    try:
        parsed = parse_amount(text)
    except InvalidInputError:
        assert not re.fullmatch("[1-9][0-9]{0,17}", text, re.ASCII)
    else:
        assert amount_text(parsed) == text.split(".")[0]


@every_case(
    ("value", "amount"),
    [
        (1, "1"),
        (0, "0"),
        ("1", "1"),
        ("1.00", "1.00"),
        (" 10.00 ", "10.00"),
        ("007", "7"),
        (Decimal("1.00"), "1.00"),
        (Decimal("10.01"), "10.01"),
        (Decimal("10.1234"), "10.1234"),
        (LARGEST, str(LARGEST)),
    ],
)
def test_a_reported_amount_is_read_as_a_number_or_as_text(value, amount):
    parsed = parse_reported_amount(value)
    assert isinstance(parsed, Decimal)
    assert parsed == Decimal(amount)


@every_case(
    "value",
    [
        None,
        True,
        False,
        10.0,
        [],
        {},
        [10],
        "",
        " ",
        "KES 10",
        "1,000",
        "-10",
        -10,
        Decimal(-10),
        "+10",
        "1e1",
        Decimal("1E+1"),
        Decimal("1E+999999999"),
        "10.00000",
        "10.",
        ".5",
        "9" * 19,
        10**18,
        "\u0661\u0660",
        "NaN",
        Decimal("NaN"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_plain_number_counts_as_not_reported(value):
    assert parse_reported_amount(value) is None


@repeatable
@given(json_values())
def test_a_reported_amount_never_raises_and_is_never_a_float(value):
    amount = parse_reported_amount(value)
    assert type(amount) in (Decimal, type(None))
    assert amount is None or (amount >= 0 and amount.is_finite())


def test_our_json_shows_whole_shillings_as_text():
    assert amount_text(Decimal("10.00")) == "10"
    assert amount_text(Decimal("1E+2")) == "100"
    with pytest.raises(AssertionError):
        amount_text(Decimal("10.50"))


def test_safaricoms_limit_is_a_quarter_of_a_million():
    assert Decimal(250_000) == MAX_AMOUNT

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.collecting import every_case
from harness.properties import json_values, repeatable
from mpesa_gateway.domain.phone import PHONE_PATTERN, mask_phone, parse_phone
from mpesa_gateway.errors import InvalidInputError


@every_case(
    "phone",
    [
        "254708374149",
        "254110000000",
        # Opened in August 2026 [C]; older expressions refuse them.
        "254118000000",
        "254140000000",
        "254181000000",
        "254000000000",
    ],
)
def test_254_and_nine_digits_is_a_phone(phone):
    assert parse_phone(phone) == phone


@every_case(
    "value",
    [
        "",
        "0708374149",
        "708374149",
        "+254708374149",
        "25470837414",
        "2547083741490",
        "255708374149",
        "254708374149 ",
        " 254708374149",
        "254708374149\n",
        "254 708 374 149",
        "254708***149",
        "254\u0667\u0660\u0668\u0663\u0667\u0664\u0661\u0664\u0669",
        "254\uff17\uff10\uff18\uff13\uff17\uff14\uff11\uff14\uff19",
        254708374149,
        None,
        True,
        ["254708374149"],
        b"254708374149",
    ],
)
def test_anything_else_is_refused_and_the_field_is_named(value):
    with pytest.raises(InvalidInputError) as refused:
        parse_phone(value)
    assert [problem.field for problem in refused.value.problems] == ["phone"]


def test_a_refusal_does_not_repeat_the_number():
    with pytest.raises(InvalidInputError) as refused:
        parse_phone("0708374149")
    assert "708374149" not in str(refused.value)


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("0712345678", "write 254 in place of the leading 0"),
        ("+254712345678", "leave out the +"),
        ("712345678", "write 254 in front of it"),
        ("0812345678", ""),
        (7, ""),
    ],
)
def test_another_usual_form_is_told_how_to_become_right(written, remedy):
    with pytest.raises(InvalidInputError) as refused:
        parse_phone(written)
    said = refused.value.problems[0].message
    assert said == ": ".join(filter(None, ["must be 254 followed by nine digits", remedy]))


@repeatable
@given(json_values())
def test_whatever_comes_a_phone_is_given_back_as_it_was_or_refused(value):
    try:
        assert parse_phone(value) == value
    except InvalidInputError:
        assert not (isinstance(value, str) and len(value) == 12 and value.isdecimal())


@repeatable
@given(st.from_regex(PHONE_PATTERN.replace("$", r"\Z")))
def test_a_masked_phone_shows_six_digits_and_hides_six(phone):
    masked = mask_phone(phone)
    assert masked == f"{phone[:3]}******{phone[9:]}"
    assert phone[3:9] not in masked

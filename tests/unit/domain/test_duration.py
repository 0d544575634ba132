from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.collecting import every_case
from harness.properties import repeatable
from mpesa_gateway.domain.duration import duration_text, parse_duration, parse_schedule


@every_case(
    ("text", "duration"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("1ms", timedelta(milliseconds=1)),
        ("5s", timedelta(seconds=5)),
        ("1m", timedelta(minutes=1)),
        ("90m", timedelta(minutes=90)),
        ("1h", timedelta(hours=1)),
        ("0s", timedelta(0)),
        (" 5s ", timedelta(seconds=5)),
        ("007s", timedelta(seconds=7)),
        ("999999999ms", timedelta(milliseconds=999_999_999)),
        ("999999999h", timedelta(hours=999_999_999)),
    ],
)
def test_a_duration_is_a_whole_number_and_its_unit(text, duration):
    assert parse_duration(text) == duration


@every_case(
    "text",
    [
        "",
        " ",
        "5",
        "s",
        "5 s",
        "-5s",
        "+5s",
        "1.5s",
        "1e3s",
        "5S",
        "5M",
        "5d",
        "5sec",
        "1m30s",
        "5s\n5s",
        "\u0665s",
        "1000000000s",
        "inf",
        "nan",
    ],
)
def test_anything_else_is_refused_with_the_form(text):
    with pytest.raises(ValueError, match="500ms, 5s, 1m or 1h"):
        parse_duration(text)


def test_a_schedule_keeps_the_order_of_its_waits():
    assert parse_schedule(["5m", "1s"]) == (timedelta(minutes=5), timedelta(seconds=1))
    assert parse_schedule([]) == ()


@pytest.mark.parametrize("texts", [["0s"], ["1m", "0ms"], ["0h", "1m"]])
def test_a_wait_of_nothing_is_refused(texts):
    with pytest.raises(ValueError, match="longer than zero"):
        parse_schedule(texts)


def test_one_bad_wait_refuses_the_schedule():
    with pytest.raises(ValueError, match="'soon'"):
        parse_schedule(["1m", "soon"])


@every_case(
    ("duration", "text"),
    [
        (timedelta(0), "0ms"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(seconds=1), "1s"),
        (timedelta(seconds=90), "90s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(minutes=90), "90m"),
        (timedelta(hours=24), "24h"),
    ],
)
def test_a_duration_is_written_in_its_largest_whole_unit(duration, text):
    assert duration_text(duration) == text


@repeatable
@given(st.integers(0, 999_999_999), st.sampled_from(["ms", "s", "m", "h"]))
def test_what_was_written_is_read_back_and_never_longer(number, unit):
    text = f"{number}{unit}"
    duration = parse_duration(text)
    assert parse_duration(duration_text(duration)) == duration
    assert not number or len(duration_text(duration)) <= len(text)

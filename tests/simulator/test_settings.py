"""How settings are read."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daraja_simulator.settings import Settings, SettingsError, parse_duration
from harness.collecting import every_case


@every_case(
    ("value", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5),
        ("1.5s", 1.5),
        ("1m", 60),
        ("1h", 3600),
        ("2", 2),
        (2, 2),
        (0.25, 0.25),
        (0, 0),
        (" 1s ", 1),
    ],
)
def test_durations_are_seconds_or_texts(value, seconds):
    assert parse_duration(value) == pytest.approx(seconds)


@every_case(
    "value",
    ["", "1d", "-1s", "s", "25h", "1e3", "1s\n1", -1, 86_401, float("nan"), float("inf"), True],
)
def test_other_durations_are_refused(value):
    with pytest.raises(ValueError, match="must be seconds"):
        parse_duration(value)


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text("0123456789.-e msh"))
def test_whatever_is_given_a_duration_is_bounded(value):
    with contextlib.suppress(ValueError):
        assert 0 <= parse_duration(value) <= 86_400


def test_texts_are_read_when_settings_are_made():
    texts: dict[str, Any] = {
        "callback_delay": "500ms",
        "push_failure_rate": "0.5",
        "queries_per_minute": "5",
    }
    settings = Settings(**texts)
    assert settings.callback_delay == pytest.approx(0.5)
    assert settings.push_failure_rate == pytest.approx(0.5)
    assert settings.queries_per_minute == 5


@every_case(
    ("name", "value"),
    [
        ("host", ""),
        ("host", 5),
        ("port", 65_536),
        ("port", "x"),
        ("port", True),
        ("credentials", {"key": ""}),
        ("credentials", {"key": 5}),
        ("passkeys", "174379=x"),
        ("push_failure_rate", "half"),
        ("push_failure_rate", None),
        ("callback_drop_rate", float("nan")),
        ("callback_timeout", 0),
        ("max_records", 0),
        ("seed", -1),
        ("verify_tls", 1),
        ("query_while_open", 5),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: value})
    assert set(caught.value.problems) == {name}


def test_every_wrong_setting_is_named():
    with pytest.raises(SettingsError, match=r"host must .*; port must "):
        Settings(host="", port=-1)


def test_secrets_are_not_shown():
    settings = Settings(credentials={"key": "hidden"}, passkeys={"174379": "hidden"})
    assert "hidden" not in repr(settings)
    assert "hidden" not in str(settings.public())

"""Months are ranges of row numbers that follow each other and never change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mpesa_gateway.domain.months import Month, month_of, month_of_row, parse_month


@pytest.mark.parametrize(
    ("at", "label"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01"),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "2026-12"),
        (datetime(2027, 1, 1, tzinfo=UTC), "2027-01"),
        # Three hours earlier it was still the month before.
        (datetime(2027, 1, 1, 2, tzinfo=timezone(timedelta(hours=3))), "2026-12"),
        (datetime(2025, 12, 31, tzinfo=UTC), "first"),
        (datetime(1969, 1, 1, tzinfo=UTC), "first"),
        (datetime(2099, 6, 1, tzinfo=UTC), "2099-06"),
    ],
)
def test_a_time_is_of_a_month_of_utc(at: datetime, label: str) -> None:
    assert month_of(at).label == label
    assert parse_month(label) == month_of(at)


def test_months_follow_each_other_without_a_gap() -> None:
    months = Month(0).next(2000)

    assert months[0].begins == 0
    assert [it.ends for it in months[:-1]] == [it.begins for it in months[1:]]
    assert months == sorted(months)
    assert months[-1].ends < 2**63


def test_a_row_number_tells_the_month() -> None:
    month = parse_month("2026-12")

    assert month_of_row(month.begins) == month_of_row(month.ends - 1) == month
    assert month_of_row(1) == Month(0)


def test_the_range_of_a_month_never_changes() -> None:
    """Rows are stored by it: another range would put old payments into other months."""
    month = parse_month("2026-12")

    assert (month.begins, month.ends, month.suffix) == (120_000_000_000, 130_000_000_000, "2026_12")
    assert Month(0).suffix == "first"


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-00", "2025-12", "2026-1", "26-01"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no month"):
        parse_month(text)

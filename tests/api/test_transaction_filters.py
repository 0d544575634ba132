"""GET /transactions: which parameters it takes, and how it refuses the others."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import unquote_plus

import pytest

from harness.collecting import every_case
from harness.gateway import Gateway
from harness.problems import assert_problem
from harness.transactions import raw_list
from mpesa_gateway.api.transactions import parse_time

GOOD_TIMES = [
    "2026-01-31T12:00:00Z",
    "2026-01-31T12:00:00z",
    "2026-01-31t12:00:00Z",
    "2026-01-31T12:00:00%2B00:00",
    "2026-01-31T12:00:00+00:00",
    "2026-01-31T15:00:00+03:00",
    "2026-01-31T11:00:00-01:00",
    "2026-01-31T12:00:00-00:00",
    "2026-01-31%2012:00:00Z",
    "2026-01-31%2015:00:00+03:00",
    "2026-01-31T12:00:00.0Z",
    "2026-01-31T12:00:00.000000000001Z",
    "2026-01-31T11:59:60Z",
]


@every_case("text", GOOD_TIMES)
def test_every_form_of_rfc_3339_is_the_same_moment(shared: Gateway, text: str) -> None:
    assert raw_list(shared, f"created_after={text}").status == 200
    as_decoded = unquote_plus(text)
    assert parse_time(as_decoded, "created_after") == datetime(2026, 1, 31, 12, tzinfo=UTC)


BAD_TIMES = [
    "",
    "now",
    "yesterday",
    "1769860800",
    "2026-01-31",
    "12:00:00Z",
    "2026-01-31T12:00:00",
    "2026-01-31T12:00Z",
    "2026-01-31T12Z",
    "20260131T120000Z",
    "2026-W05-6T12:00:00Z",
    "2026-031T12:00:00Z",
    "2026-01-31x12:00:00Z",
    "2026-01-31T12:00:00,5Z",
    "2026-01-31T12:00:00.Z",
    "2026-01-31T12:00:00 Z",
    "2026-01-31T12:00:00%2B03",
    "2026-01-31T12:00:00%2B0300",
    "2026-01-31T12:00:00%2B00:00:30",
    "2026-01-31T12:00:00%2B24:00",
    "2026-01-31T12:00:00%2B03:60",
    "2026-01-31T24:00:00Z",
    "2026-01-31T12:60:00Z",
    "2026-01-31T12:00:61Z",
    "2026-02-29T12:00:00Z",
    "2026-13-01T12:00:00Z",
    "2026-00-01T12:00:00Z",
    "0000-01-01T00:00:00Z",
    "12026-01-31T12:00:00Z",
    "-2026-01-31T12:00:00Z",
    "2026-01-31T12:00:00ZZ",
    "2026-01-31T12:00:00Z%0A",
    "%EF%BC%922026-01-31T12:00:00Z",
    "%D9%A2026-01-31T12:00:00Z",
    "2026-01-31T12:00:00.%D9%A1Z",
    "%00",
    "infinity",
    "2026-01-31T12:00:00[Africa/Nairobi]",
]


@every_case("name", ["created_after", "created_before"])
@every_case("text", BAD_TIMES)
def test_what_is_no_rfc_3339_time_is_refused(shared: Gateway, name: str, text: str) -> None:
    data = raw_list(shared, f"{name}={text.replace(' ', '%20')}")

    assert_problem(data, 400, "invalid-input", name)


@every_case(
    "text",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00%2B14:00",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00",
        "9999-12-31T23:59:60Z",
        "1969-12-31T23:59:59Z",
    ],
)
def test_a_time_at_the_ends_of_the_calendar_is_a_time(shared: Gateway, text: str) -> None:
    assert raw_list(shared, f"created_after={text}").status == 200


@pytest.mark.parametrize("text", ["1", "200", "01", "0200"])
def test_a_limit_within_bounds_is_taken(shared: Gateway, text: str) -> None:
    assert raw_list(shared, f"limit={text}").status == 200


BAD_LIMITS = [
    *("", "0", "-1", "201", "1000", "1e2", "10.0", "x", "+1", "%2B1", "%201", "1%20", "0x10"),
    *("%D9%A1", "%C2%B2", "null", "true", "1_0", "9" * 18, "9" * 5000),
    # Whoever looks at the first digits only would let these through.
    *("000000200" + "9" * 9, "0" * 8 + "1" + "0" * 20, "0" * 8 + "1" + "0" * 5000),
]


@every_case("text", BAD_LIMITS, ids=lambda it: it[:24])
def test_a_limit_out_of_bounds_is_refused(shared: Gateway, text: str) -> None:
    assert_problem(raw_list(shared, f"limit={text}"), 400, "invalid-input", "limit")


BAD_CURSORS = [
    *("", "x", "1", "%00", "%C3%A9", "null", "=", "cjE=", "A" * 5000),
    *("r", "r-1", "r1x", "r 1", "rr1", "r1.0", "r1%0A", "R1", "rF", "r" + "9" * 16),
    *("r" + "9" * 3000, "r%D9%A1", "r%00", "%FFr1"),
]


@every_case("text", BAD_CURSORS, ids=lambda it: it[:24])
def test_a_cursor_that_is_not_ours_is_refused(shared: Gateway, text: str) -> None:
    data = raw_list(shared, f"cursor={text.replace(' ', '%20')}")

    assert_problem(data, 400, "invalid-input", "cursor")


@every_case(
    ("query", "fields"),
    [
        ("status=pending", ["status"]),
        ("status=", ["status"]),
        ("status=PENDING&status=FAILED", ["status"]),
        ("status=PENDING,FAILED", ["status"]),
        ("phone=0712345678", ["phone"]),
        ("phone=%2B254712345678", ["phone"]),
        ("phone=", ["phone"]),
        ("phone=254712345678%0A", ["phone"]),
        ("phone=%FF", ["phone"]),
        ("merchant=shops/duka", ["merchant"]),
        ("Status=PENDING", ["Status"]),
        ("offset=1", ["offset"]),
        ("=1", [""]),
        ("status", ["status"]),
        (f"{'x' * 5000}=1", ["x" * 64]),
        (
            "status=x&phone=x&created_after=x&created_before=x&limit=x&cursor=!&other=x",
            [
                *("status", "phone", "created_after", "created_before", "limit", "cursor"),
                "other",
            ],
        ),
    ],
    ids=lambda it: str(it)[:40],
)
def test_every_bad_parameter_is_named_at_once(
    shared: Gateway, query: str, fields: list[str]
) -> None:
    assert_problem(raw_list(shared, query), 400, "invalid-input", *fields)


def test_an_error_repeats_no_value(shared: Gateway) -> None:
    reply = raw_list(shared, "phone=2547SECRET&cursor=SECRET&status=SECRET&limit=SECRET")

    assert reply.status == 400
    assert b"SECRET" not in reply.body

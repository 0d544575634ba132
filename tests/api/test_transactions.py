"""GET /transactions and what hangs below it; POST …/redeliver."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_plus

import pytest
import requests

from harness.gateway import Gateway
from harness.problems import assert_problem
from harness.receiver import Answer
from harness.settings import API_KEY
from harness.waiting import wait_for
from harness.wire import Reply, exchange, request_bytes
from mpesa_gateway.api.transactions import parse_time

Phones = Callable[[str], str]
KEY_HEADER = f"X-Internal-Secret: {API_KEY}"
VIEW = {
    *("transaction_id", "merchant", "status", "amount", "phone", "account_reference"),
    *("description", "webhook_url", "idempotency_key", "push", "checkout_request_id", "receipt"),
    *("metadata", "result", "failure", "settled_by", "attention", "next_step", "created_at"),
    *("updated_at", "finished_at"),
}
DELIVERY = {
    *("id", "transaction_id", "type", "state", "url", "attempts_made", "next_attempt_at"),
    *("parked", "created_at", "finished_at"),
}
# As the columns of webhook_attempts.
ATTEMPT = {
    *("attempt_number", "outcome", "success", "response_status_code", "response_time_ms"),
    *("error_message", "attempted_at"),
}


def ended(gateway: Gateway, phone: str) -> str:
    """A payment whose callback came and was applied, and whose webhook was tried."""
    transaction_id = gateway.pay(phone)
    wait_for(
        lambda: gateway.rows(
            "SELECT FROM callbacks c JOIN transactions t ON t.id = c.transaction_id"
            " WHERE t.internal_transaction_id = %s",
            transaction_id,
        ),
        what="the callback",
    )
    gateway.work()
    return transaction_id


def listed(gateway: Gateway, **params: Any) -> list[str]:
    response = gateway.get("/transactions", **params)
    assert response.status_code == 200, response.text
    return [item["transaction_id"] for item in response.json()["items"]]


def raw_list(gateway: Gateway, query: str) -> Reply:
    return exchange(gateway.url, request_bytes("GET", f"/transactions?{query}", KEY_HEADER))


def redeliver(gateway: Gateway, transaction_id: object, **options: Any) -> requests.Response:
    return gateway.session.post(
        f"{gateway.url}/transactions/{transaction_id}/redeliver",
        headers={"X-Internal-Secret": API_KEY},
        timeout=10,
        **options,
    )


def test_a_pending_transaction_is_told_as_it_is(shared: Gateway, new_phone: Phones) -> None:
    phone = new_phone("4042")
    body = shared.body(phone, amount="120.00", account_reference="INV 7", description="Shoes")
    response = shared.session.post(
        f"{shared.url}/initiate", json=body, headers={"X-Internal-Secret": API_KEY}
    )

    view = shared.transaction(response.json()["transaction_id"])

    assert set(view) == VIEW | {"conflicts"}
    assert view["status"] == "PENDING"
    assert view["amount"] == "120"
    assert view["phone"] == phone
    assert view["idempotency_key"] == body["idempotency_key"]
    assert (view["account_reference"], view["description"]) == ("INV 7", "Shoes")
    assert view["next_step"]["action"] == "query"
    for name in ("receipt", "metadata", "result", "failure", "settled_by", "attention"):
        assert view[name] is None
    assert view["finished_at"] is None
    assert view["conflicts"] == []
    for name in ("created_at", "updated_at"):
        assert view[name].endswith("Z")
        assert abs(datetime.fromisoformat(view[name]) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("digits", "status", "code"),
    [("0000", "COMPLETED", "0"), ("1032", "FAILED", "1032"), ("0003", "FAILED", "SFC_IC0003")],
)
def test_an_ended_transaction_says_how_it_ended(
    shared: Gateway, new_phone: Phones, digits: str, status: str, code: str
) -> None:
    view = shared.transaction(ended(shared, new_phone(digits)))

    assert (view["status"], view["result"]["code"]) == (status, code)
    assert set(view["result"]["message"]) == {"en", "sw"}
    assert view["next_step"] is None
    assert view["settled_by"] == "callback"
    assert view["finished_at"] >= view["created_at"]
    assert (view["failure"] is None) == (status == "COMPLETED")
    assert (view["receipt"] is None) == (status == "FAILED")


UNKNOWN_IDS = [
    str(uuid.UUID(int=0)),
    "01a20a83-ed23-7188-93c4-82db372d5be4",
    "x",
    "1",
    "%00",
    "%2e%2e",
    "0" * 32,
    "0" * 5000,
    "' OR 1=1 --".replace(" ", "%20"),
    "%D9%A1",
    "{transaction_id}",
]


@pytest.mark.parametrize("transaction_id", UNKNOWN_IDS, ids=lambda it: it[:24])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/deliveries"), ("POST", "/redeliver")]
)
def test_an_unknown_id_is_not_found(
    shared: Gateway, method: str, path: str, transaction_id: str
) -> None:
    data = request_bytes(method, f"/transactions/{transaction_id}{path}", KEY_HEADER)

    assert_problem(exchange(shared.url, data), 404, "not-found")


def test_an_id_is_found_in_either_case_and_nowhere_else(shared: Gateway, new_phone: Phones) -> None:
    transaction_id = shared.pay(new_phone("4042"))

    assert shared.get(f"/transactions/{transaction_id.upper()}").status_code == 200
    for path in (f"{transaction_id}/", f"{transaction_id}/x", transaction_id.replace("-", "")):
        assert_problem(shared.get(f"/transactions/{path}"), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ""),
        ("DELETE", ""),
        ("PUT", f"/{uuid.UUID(int=1)}"),
        ("DELETE", f"/{uuid.UUID(int=1)}"),
        ("POST", f"/{uuid.UUID(int=1)}/deliveries"),
        ("GET", f"/{uuid.UUID(int=1)}/redeliver"),
    ],
)
def test_another_method_is_not_allowed(shared: Gateway, method: str, path: str) -> None:
    data = request_bytes(method, f"/transactions{path}", KEY_HEADER)

    assert_problem(exchange(shared.url, data), 405, "method-not-allowed")


def test_pages_have_no_gaps_and_no_repeats_while_new_ones_arrive(
    gateway: Gateway, new_phone: Phones
) -> None:
    mine = [gateway.pay(new_phone("4042")) for _ in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    pages = 0
    while True:
        page = gateway.get("/transactions", limit=2, **cursor).json()
        seen += [item["transaction_id"] for item in page["items"]]
        pages += 1
        gateway.pay(new_phone("4042"))
        if page["next"] is None:
            break
        assert len(page["items"]) == 2
        cursor = {"cursor": page["next"]}

    assert seen == mine[::-1]
    assert pages == 4


def test_the_last_page_says_so_also_when_it_is_full(gateway: Gateway, new_phone: Phones) -> None:
    assert gateway.get("/transactions").json() == {"items": [], "next": None}
    for _ in range(3):
        gateway.pay(new_phone("4042"))

    assert gateway.get("/transactions", limit=3).json()["next"] is None
    page = gateway.get("/transactions", limit=2).json()
    assert page["next"] is not None
    (item,) = gateway.get("/transactions", limit=2, cursor=page["next"]).json()["items"]
    assert set(item) == VIEW


def test_filters_narrow_and_combine(gateway: Gateway, new_phone: Phones) -> None:
    paid_phone, open_phone = new_phone("0000"), new_phone("4042")
    paid = ended(gateway, paid_phone)
    cancelled = ended(gateway, new_phone("1032"))
    gateway.clock.advance(hours=1)
    pending = gateway.pay(open_phone)
    again = ended(gateway, paid_phone)

    assert listed(gateway) == [again, pending, cancelled, paid]
    assert listed(gateway, status="COMPLETED") == [again, paid]
    assert listed(gateway, status="FAILED") == [cancelled]
    assert listed(gateway, status="PENDING") == [pending]
    assert listed(gateway, phone=paid_phone) == [again, paid]
    assert listed(gateway, phone=open_phone, status="COMPLETED") == []
    between = gateway.transaction(cancelled)["finished_at"]
    assert listed(gateway, created_after=between) == [again, pending]
    assert listed(gateway, created_before=between) == [cancelled, paid]
    assert listed(gateway, created_after=between, status="COMPLETED", phone=paid_phone) == [again]
    assert listed(gateway, created_after=between, created_before=between) == []
    page = gateway.get("/transactions", status="COMPLETED", limit=1).json()
    following = gateway.get("/transactions", status="COMPLETED", limit=1, cursor=page["next"])
    assert [it["transaction_id"] for it in following.json()["items"]] == [paid]


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


@pytest.mark.parametrize("text", GOOD_TIMES)
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


@pytest.mark.parametrize("name", ["created_after", "created_before"])
@pytest.mark.parametrize("text", BAD_TIMES)
def test_what_is_no_rfc_3339_time_is_refused(shared: Gateway, name: str, text: str) -> None:
    data = raw_list(shared, f"{name}={text.replace(' ', '%20')}")

    assert_problem(data, 400, "invalid-input", name)


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("text", BAD_LIMITS, ids=lambda it: it[:24])
def test_a_limit_out_of_bounds_is_refused(shared: Gateway, text: str) -> None:
    assert_problem(raw_list(shared, f"limit={text}"), 400, "invalid-input", "limit")


BAD_CURSORS = [
    *("", "x", "1", "%00", "%C3%A9", "null", "=", "cjE=", "A" * 5000),
    *("r", "r-1", "r1x", "r 1", "rr1", "r1.0", "r1%0A", "R1", "rF", "r" + "9" * 16),
    *("r" + "9" * 3000, "r%D9%A1", "r%00", "%FFr1"),
]


@pytest.mark.parametrize("text", BAD_CURSORS, ids=lambda it: it[:24])
def test_a_cursor_that_is_not_ours_is_refused(shared: Gateway, text: str) -> None:
    data = raw_list(shared, f"cursor={text.replace(' ', '%20')}")

    assert_problem(data, 400, "invalid-input", "cursor")


def test_a_cursor_far_away_is_the_end_or_the_beginning(shared: Gateway, new_phone: Phones) -> None:
    shared.pay(new_phone("4042"))

    assert listed(shared, cursor="r0") == []
    assert listed(shared, cursor="r" + "f" * 15) == listed(shared)


@pytest.mark.parametrize(
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


def test_a_transaction_that_goes_on_has_no_deliveries(shared: Gateway, new_phone: Phones) -> None:
    transaction_id = shared.pay(new_phone("4042"))

    response = shared.get(f"/transactions/{transaction_id}/deliveries")

    assert response.json() == {"items": []}
    assert_problem(redeliver(shared, transaction_id), 409, "nothing-to-deliver")


def test_a_delivery_shows_every_attempt(gateway: Gateway, new_phone: Phones) -> None:
    gateway.receiver.answers.append(Answer(500))
    transaction_id = ended(gateway, new_phone("0000"))
    gateway.clock.advance(minutes=2)
    gateway.sweep()

    response = gateway.get(f"/transactions/{transaction_id}/deliveries")

    (delivery,) = response.json()["items"]
    assert set(delivery) == DELIVERY | {"attempts"}
    assert delivery["transaction_id"] == transaction_id
    assert delivery["type"] == "transaction.completed"
    assert delivery["state"] == "DELIVERED"
    assert delivery["url"] == gateway.receiver.url
    assert delivery["attempts_made"] == 2
    first, second = delivery["attempts"]
    assert set(first) == set(second) == ATTEMPT
    assert (first["attempt_number"], second["attempt_number"]) == (1, 2)
    assert (first["success"], second["success"]) == (False, True)
    assert (first["response_status_code"], second["response_status_code"]) == (500, 200)
    assert (first["outcome"], second["outcome"]) == ("failed", "delivered")
    assert first["response_time_ms"] >= 0
    assert first["attempted_at"] < second["attempted_at"]
    assert [request.webhook_id for request in gateway.receiver.requests] == [delivery["id"]] * 2
    # The columns are what the specification's SELECT expects.
    rows = gateway.rows(
        "SELECT attempt_number, success, response_status_code, response_time_ms, attempted_at"
        " FROM webhook_attempts WHERE transaction_id = (SELECT id FROM transactions"
        " WHERE internal_transaction_id = %s) ORDER BY attempt_number",
        transaction_id,
    )
    assert [row["attempt_number"] for row in rows] == [1, 2]


@pytest.mark.parametrize(
    "options",
    [{}, {"data": b"not json"}, {"json": {"x": 1}}, {"data": iter([b"x"])}],
    ids=["empty", "text", "json", "chunked"],
)
def test_a_delivered_webhook_may_be_sent_again_whatever_the_request_says(
    shared: Gateway, new_phone: Phones, options: dict[str, Any]
) -> None:
    transaction_id = ended(shared, new_phone("0000"))
    assert len(shared.receiver.of(transaction_id)) == 1

    response = redeliver(shared, transaction_id, **options)

    assert response.status_code == 202
    (delivery,) = response.json()["items"]
    assert set(delivery) == DELIVERY
    assert delivery["state"] == "PENDING"
    shared.work()
    first, second = shared.receiver.of(transaction_id)
    assert (first.webhook_id, first.body) == (second.webhook_id, second.body)
    (delivery,) = shared.get(f"/transactions/{transaction_id}/deliveries").json()["items"]
    assert [attempt["attempt_number"] for attempt in delivery["attempts"]] == [1, 2]
    assert delivery["state"] == "DELIVERED"


def test_asking_twice_before_it_is_sent_sends_it_once(shared: Gateway, new_phone: Phones) -> None:
    transaction_id = ended(shared, new_phone("1032"))
    for _ in range(3):
        assert redeliver(shared, transaction_id).status_code == 202

    shared.work()

    assert len(shared.receiver.of(transaction_id)) == 2


def test_a_redelivery_with_a_large_body_is_refused(shared: Gateway, new_phone: Phones) -> None:
    transaction_id = ended(shared, new_phone("0000"))

    response = redeliver(shared, transaction_id, data=b"x" * 70_000)

    assert_problem(response, 413, "body-too-large")
    shared.work()
    assert len(shared.receiver.of(transaction_id)) == 1


@pytest.mark.parametrize("path", ["/", "/x", "/transactions/", "/Transactions", "/initiate/", "//"])
def test_a_path_that_is_not_there_is_not_found(shared: Gateway, path: str) -> None:
    data = request_bytes("GET", path, KEY_HEADER)

    assert_problem(exchange(shared.url, data), 404, "not-found")

"""GET /transactions/{id}, and the list of GET /transactions."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.collecting import every_case
from harness.gateway import Gateway
from harness.problems import assert_problem
from harness.settings import API_KEY
from harness.transactions import KEY_HEADER, ended
from harness.wire import exchange, request_bytes

Phones = Callable[[str], str]
VIEW = {
    *("transaction_id", "merchant", "status", "amount", "phone", "account_reference"),
    *("description", "order_id", "custom_data", "webhook_url", "idempotency_key", "push"),
    *("checkout_request_id", "receipt"),
    *("metadata", "result", "failure", "settled_by", "attention", "next_step", "created_at"),
    *("updated_at", "finished_at"),
}


def listed(gateway: Gateway, **params: Any) -> list[str]:
    response = gateway.get("/transactions", **params)
    assert response.status_code == 200, response.text
    return [item["transaction_id"] for item in response.json()["items"]]


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


@every_case("transaction_id", UNKNOWN_IDS, ids=lambda it: it[:24])
@every_case(("method", "path"), [("GET", ""), ("GET", "/deliveries"), ("POST", "/redeliver")])
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


@every_case(
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


@every_case("path", ["/", "/x", "/transactions/", "/Transactions", "/initiate/", "//"])
def test_a_path_that_is_not_there_is_not_found(shared: Gateway, path: str) -> None:
    data = request_bytes("GET", path, KEY_HEADER)

    assert_problem(exchange(shared.url, data), 404, "not-found")


def test_a_cursor_tells_nothing_of_others_and_works_for_nobody_else(gateway: Gateway) -> None:
    """A row number would tell how many payments the whole platform has."""
    ids = [gateway.pay(f"2547{number:04d}4042") for number in range(3)]
    cursor = gateway.get("/transactions", limit=1).json()["next"]

    assert cursor == f"t{uuid.UUID(ids[-1]).hex}"
    (row,) = gateway.rows(
        "SELECT id FROM transactions WHERE internal_transaction_id = %s::uuid", ids[-1]
    )
    for forged in (f"r{row['id']:x}", f"t{uuid.uuid4().hex}", cursor.upper(), f"{cursor}0"):
        answer = gateway.get("/transactions", cursor=forged)
        assert answer.status_code == 400, forged
        assert answer.json()["errors"][0]["field"] == "cursor"

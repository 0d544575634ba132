"""SQL in every text that the API takes: refused, or kept as the text that it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from harness.bodies import callback_body
from harness.callbacks import assert_accepted, kept, paid_silently, post
from harness.collecting import every_case
from harness.gateway import Gateway
from harness.initiate import SILENT, nothing_created
from harness.problems import assert_problem

Phones = Callable[[str], str]

PAYLOADS = [
    "'",
    "''",
    "' OR '1'='1",
    "' OR 1=1 --",
    "'; DROP TABLE transactions; --",
    "'; UPDATE transactions SET status = 'COMPLETED'; --",
    "1; DELETE FROM callbacks",
    "') UNION SELECT response_body FROM transactions --",
    "\\'; SELECT pg_sleep(9); --",
    "$$; DROP SCHEMA public CASCADE; $$",
    "%s",
    "%(phone)s",
    "%%",
    "{0}",
    "\u02bc OR 1=1",
    "'/**/OR/**/1=1#",
    "E'\\x27'",
    "254700000000' OR 'a'='a",
]
FIELDS = (
    "amount",
    "phone",
    "webhook_url",
    "idempotency_key",
    "account_reference",
    "description",
)
FILTERS = ("status", "phone", "created_after", "created_before", "limit", "cursor")


def digest(gateway: Gateway) -> dict[str, str]:
    """What every table holds: another name, row or value makes another digest."""
    tables = gateway.rows(
        "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1"
    )
    return {
        it["name"]: gateway.rows(
            "SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') AS md5"
            f' FROM "{it["name"]}" t'
        )[0]["md5"]
        for it in tables
    }


@contextmanager
def only(gateway: Gateway, *changed: str) -> Iterator[None]:
    """Exactly these tables change."""
    before = digest(gateway)
    yield
    after = digest(gateway)
    assert {name for name in before | after if before.get(name) != after.get(name)} == set(changed)


@pytest.fixture(scope="module")
def bystander(shared: Gateway) -> str:
    """A payment that is there to be hit."""
    return shared.pay("254799994042")


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_payment_takes_sql(
    shared: Gateway, bystander: str, new_phone: Phones, field: str
) -> None:
    with only(shared), nothing_created(shared):
        for payload in PAYLOADS:
            response = shared.initiate(**{"phone": new_phone(SILENT), field: payload})
            assert_problem(response, 400, "invalid-input", field)
    assert shared.transaction(bystander)["status"] == "PENDING"


@every_case("name", [*FILTERS, "order_by"])
def test_no_filter_takes_sql(shared: Gateway, bystander: str, name: str) -> None:
    with only(shared):
        for payload in PAYLOADS:
            response = shared.get("/transactions", **{name: payload})
            assert_problem(response, 400, "invalid-input", name)
            assert bystander not in response.text


@every_case("payload", PAYLOADS)
@every_case("below", ["", "/deliveries"])
def test_no_id_in_a_path_takes_sql(
    shared: Gateway, bystander: str, below: str, payload: str
) -> None:
    with only(shared):
        for path in (
            f"/transactions/{quote(payload, safe='')}{below}",
            f"/transactions/{bystander}{quote(payload, safe='')}{below}",
        ):
            assert_problem(shared.get(path), 404, "not-found")


@every_case("payload", PAYLOADS)
def test_neither_a_key_nor_a_token_takes_sql(shared: Gateway, bystander: str, payload: str) -> None:
    as_header = payload.encode().decode("latin-1")
    with only(shared):
        assert_problem(shared.get(f"/transactions/{bystander}", key=as_header), 401, "unauthorized")
        assert_problem(post(shared, f"/callback/{quote(payload, safe='')}"), 404, "not-found")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_sql_in_a_webhook_url_is_kept_as_text(
    shared: Gateway, new_phone: Phones, payload: str
) -> None:
    order = quote(payload, safe="'();=*$")
    url = f"{shared.receiver.url}?order={order}"
    phone = new_phone(SILENT)

    with only(shared, "transactions", "transaction_events"):
        transaction_id = shared.pay(phone, webhook_url=url)

    (row,) = shared.rows(
        "SELECT webhook_url FROM transactions WHERE internal_transaction_id = %s", transaction_id
    )
    assert row["webhook_url"] == url


@pytest.mark.parametrize("payload", PAYLOADS)
def test_sql_in_a_callback_is_kept_as_text_and_does_what_the_same_words_would(
    shared: Gateway, new_phone: Phones, payload: str
) -> None:
    """In its body, in what is read out of it, and in the headers that are kept beside it."""
    phone = new_phone(SILENT)
    transaction_id, path = paid_silently(shared, phone)
    callback = json.loads(callback_body(shared.checkout_request_id(phone), code=1032))
    callback["Body"]["stkCallback"] |= {"ResultDesc": payload, "MerchantRequestID": payload}
    body = json.dumps(callback).encode()
    agent = payload.encode().decode("latin-1")

    with only(shared, "callbacks"):
        assert_accepted(post(shared, path, body, **{"User-Agent": agent}))
    with only(shared, "callbacks", "transactions", "transaction_events", "deliveries"):
        for it in shared.notifier.take():
            shared.dispatcher.run(it)
    (row,) = kept(shared, transaction_id)
    assert (bytes(row["body"]), row["headers"]["user-agent"]) == (body, agent)
    (found,) = shared.rows(
        "SELECT status, result_desc FROM transactions WHERE internal_transaction_id = %s",
        transaction_id,
    )
    assert found == {"status": "FAILED", "result_desc": payload}
    shared.work()


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("member", ["CheckoutRequestID", "ResultCode", "MpesaReceiptNumber"])
def test_sql_where_a_callback_names_things_settles_nothing(
    shared: Gateway, new_phone: Phones, member: str, payload: str
) -> None:
    phone = new_phone(SILENT)
    transaction_id, path = paid_silently(shared, phone)
    checkout = payload if member == "CheckoutRequestID" else shared.checkout_request_id(phone)
    receipt = payload if member == "MpesaReceiptNumber" else "UJ22T8IYOU"
    callback = json.loads(callback_body(checkout, receipt=receipt))
    if member == "ResultCode":
        callback["Body"]["stkCallback"]["ResultCode"] = payload

    assert_accepted(post(shared, path, json.dumps(callback).encode()))
    shared.work()

    view = shared.transaction(transaction_id)
    assert view["status"] != "COMPLETED"
    (row,) = kept(shared, transaction_id)
    assert json.loads(bytes(row["body"])) == callback
    receipts = shared.rows("SELECT receipt FROM transactions WHERE receipt = %s", payload)
    assert receipts == []

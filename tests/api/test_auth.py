"""API keys: how they are sent, what they open, and that nothing crosses merchants."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.callbacks import applied
from harness.collecting import every_case
from harness.gateway import Gateway, Gateways, open_gateway
from harness.merchants import sha256_hex, write_merchant
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.settings import API_KEY
from harness.waiting import wait_for
from harness.wire import exchange, request_bytes

DUKA_KEY = "key-of-duka"
DUKA_NEW_KEY = "newer-key-of-duka"
MAMA_KEY = "key-of-mama"


@pytest.fixture(scope="module")
def merchants_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("merchants")
    both = [sha256_hex(DUKA_KEY), sha256_hex(DUKA_NEW_KEY)]
    write_merchant(directory, "duka.json", name="shops/duka", apiKeySHA256=both)
    write_merchant(directory, "mama.json", name="shops/mama", key=MAMA_KEY, shortCode="600200")
    return directory


@pytest.fixture(scope="module")
def shops(gateways: Gateways, merchants_directory: Path) -> Iterator[Gateway]:
    """A gateway with `default`, `shops/duka` (two keys) and `shops/mama`."""
    with gateways.start(merchants_dir=str(merchants_directory)) as gateway:
        yield gateway


GUARDED = [
    ("POST", "/initiate"),
    ("GET", "/transactions"),
    ("GET", f"/transactions/{uuid.UUID(int=7)}"),
    ("GET", f"/transactions/{uuid.UUID(int=7)}/deliveries"),
    ("POST", f"/transactions/{uuid.UUID(int=7)}/redeliver"),
    # The key is judged first: without one, nobody learns which ids or parameters are good.
    ("GET", "/transactions/no-uuid"),
    ("GET", "/transactions?limit=x"),
]
REFUSED_HEADERS = [
    [],
    ["X-Internal-Secret:"],
    ["X-Internal-Secret: wrong"],
    [f"X-Internal-Secret: {API_KEY}x"],
    [f"X-Internal-Secret: {API_KEY[:-1]}"],
    [f"X-Internal-Secret: {API_KEY.upper()}"],
    [f"X-Internal-Secret: {sha256_hex(API_KEY)}"],
    [f"X-Internal-Secret: Bearer {API_KEY}"],
    [f"X-Internal-Secret: {API_KEY}, {API_KEY}"],
    [f"X_Internal_Secret: {API_KEY}"],
    [f"Cookie: X-Internal-Secret={API_KEY}"],
    ["X-Internal-Secret: " + "x" * 513],
    ["X-Internal-Secret: " + "x" * 20_000],
    ["X-Internal-Secret: caf\xe9"],
    ["X-Internal-Secret: \xff\xfe"],
    ["X-Internal-Secret: null"],
    ["Authorization: Bearer"],
    ["Authorization: Bearer "],
    ["Authorization: Bearer wrong"],
    ["Authorization:"],
    [f"Authorization: {API_KEY}"],
    [f"Authorization: Basic {API_KEY}"],
    [f"Authorization: Basic {API_KEY}="],
    [f"Authorization: Bearer Bearer {API_KEY}"],
    [f"Authorization: Bearer\t{API_KEY}"],
    [f'Authorization: Bearer "{API_KEY}"'],
    ["Authorization: Bearer " + "\xe9" * 300],
    # A wrong key is not excused by a good one elsewhere.
    ["X-Internal-Secret: wrong", f"Authorization: Bearer {API_KEY}"],
    # Two different keys: whose request would it be?
    [f"X-Internal-Secret: {API_KEY}", f"X-Internal-Secret: {DUKA_KEY}"],
]


@every_case("headers", REFUSED_HEADERS, ids=lambda it: str(it)[:48])
def test_no_key_or_a_wrong_one_is_refused_in_one_way(shops: Gateway, headers: list[str]) -> None:
    replies = [
        exchange(shops.url, request_bytes(method, path, *headers)) for method, path in GUARDED
    ]

    for reply in replies:
        assert_problem(reply, 401, "unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"
    # Nothing tells an unknown key from a missing one.
    assert {reply.body for reply in replies} == {
        exchange(shops.url, request_bytes("GET", "/transactions")).body
    }


def test_a_refused_caller_creates_nothing(shops: Gateway) -> None:
    before = shops.rows("SELECT count(*) FROM transactions")

    assert_problem(shops.initiate(key="wrong"), 401, "unauthorized")

    assert shops.rows("SELECT count(*) FROM transactions") == before
    assert shops.simulator.ledger(phone="254712340000")["pushes"] == []


@every_case(
    "header",
    [
        f"X-Internal-Secret: {API_KEY}",
        f"x-internal-secret:{API_KEY}",
        f"X-INTERNAL-SECRET:   {API_KEY}  ",
        f"Authorization: Bearer {API_KEY}",
        f"authorization: bearer   {API_KEY}",
        f"Authorization: BEARER {API_KEY}",
        f"Authorization: Bearer {DUKA_KEY}",
        f"X-Internal-Secret: {DUKA_NEW_KEY}",
    ],
)
def test_a_good_key_is_taken_from_either_header(shops: Gateway, header: str) -> None:
    reply = exchange(shops.url, request_bytes("GET", "/transactions", header))

    assert reply.status == 200


def test_a_key_names_its_merchant(shops: Gateway) -> None:
    ids = {
        "shops/duka": shops.pay("254711004042", key=DUKA_KEY),
        "shops/mama": shops.pay("254711014042", key=MAMA_KEY),
        "default": shops.pay("254711024042"),
    }
    # A second key of the same merchant opens the same things, as a rotation needs.
    view = shops.get(f"/transactions/{ids['shops/duka']}", key=DUKA_NEW_KEY)
    assert view.json()["merchant"] == "shops/duka"
    for row in shops.rows("SELECT merchant, internal_transaction_id FROM transactions"):
        if row["merchant"] in ids and str(row["internal_transaction_id"]) in ids.values():
            assert str(row["internal_transaction_id"]) == ids[row["merchant"]]


@pytest.mark.parametrize("key", [API_KEY, MAMA_KEY])
def test_another_merchants_transaction_does_not_exist(shops: Gateway, key: str) -> None:
    phone = f"25471110{1 if key == API_KEY else 2}000"
    theirs = shops.pay(phone, key=DUKA_KEY)
    applied(shops, theirs)
    assert shops.get(f"/transactions/{theirs}", key=DUKA_KEY).json()["status"] == "COMPLETED"
    attempts = len(shops.receiver.of(theirs))
    unknown = uuid.uuid4()

    for path in ("", "/deliveries"):
        refused = shops.get(f"/transactions/{theirs}{path}", key=key)
        assert_problem(refused, 404, "not-found")
        # In the same words as for an id that nobody has.
        assert refused.content == shops.get(f"/transactions/{unknown}{path}", key=key).content
    response = redeliver(shops, theirs, key)
    assert_problem(response, 404, "not-found")
    shops.work()
    assert len(shops.receiver.of(theirs)) == attempts
    listed = shops.get("/transactions", key=key, limit=200).json()["items"]
    assert theirs not in {item["transaction_id"] for item in listed}
    listed = shops.get("/transactions", key=key, phone=phone).json()["items"]
    assert listed == []


def redeliver(gateway: Gateway, transaction_id: str, key: str) -> requests.Response:
    return gateway.session.post(
        f"{gateway.url}/transactions/{transaction_id}/redeliver",
        headers={"X-Internal-Secret": key},
        timeout=10,
    )


def test_a_list_shows_the_callers_own_transactions_only(shops: Gateway) -> None:
    mine = shops.pay("254711204042", key=MAMA_KEY)
    shops.pay("254711214042", key=DUKA_KEY)

    listed = shops.get("/transactions", key=MAMA_KEY, limit=200).json()["items"]

    assert mine in {item["transaction_id"] for item in listed}
    assert {item["merchant"] for item in listed} == {"shops/mama"}


@pytest.mark.parametrize(
    ("state", "status", "slug"),
    [("suspended", 403, "merchant-suspended"), ("draining", 410, "merchant-removed")],
)
def test_a_merchant_that_may_not_start_payments_still_reads_and_replays(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    tmp_path: Path,
    state: str,
    status: int,
    slug: str,
) -> None:
    write_merchant(tmp_path, key=DUKA_KEY)
    with open_gateway(
        database_url, redis_url, simulator, receiver, merchants_dir=str(tmp_path)
    ) as gateway:
        body = gateway.body("254712340000")
        headers = {"X-Internal-Secret": DUKA_KEY}
        first = gateway.session.post(f"{gateway.url}/initiate", json=body, headers=headers)
        assert first.status_code == 201
        transaction_id = first.json()["transaction_id"]
        wait_for(lambda: gateway.rows("SELECT FROM callbacks"), what="the callback")
        changes: dict[str, Any] = {state: True}
        write_merchant(tmp_path, key=DUKA_KEY, **changes)
        gateway.services.merchants.refresh()
        applied(gateway, transaction_id)

        document = assert_problem(gateway.initiate("254722340000", key=DUKA_KEY), status, slug)

        assert "retry_after" not in document
        assert len(gateway.rows("SELECT FROM transactions")) == 1
        assert len(simulator.ledger()["pushes"]) == 1
        again = gateway.session.post(f"{gateway.url}/initiate", json=body, headers=headers)
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
        # What was paid is told all the same.
        view = gateway.get(f"/transactions/{transaction_id}", key=DUKA_KEY).json()
        assert view["status"] == "COMPLETED"
        assert len(receiver.of(transaction_id)) == 1
        assert redeliver(gateway, transaction_id, DUKA_KEY).status_code == 202
        # Bad input is bad input first.
        bad = gateway.initiate("07", key=DUKA_KEY)
        assert_problem(bad, 400, "invalid-input", "phone")
        # Other merchants go on.
        assert gateway.initiate("254722340000").status_code == 201

"""Callbacks with a token of ours whose payment is not in this database: kept, shown, never 404."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.bodies import callback_body
from harness.callbacks import ACCEPTED, applied, assert_accepted, kept, paid_silently, post
from harness.counters import Since
from harness.gateway import Gateway, Gateways
from harness.losing import bring_back, lose
from harness.merchants import write_merchant
from harness.problems import assert_problem
from mpesa_gateway.config.config import TOKEN_PURPOSE
from mpesa_gateway.domain.ids import TokenKeys, derived_key

Phones = Callable[[str], str]
OTHER_KEY = "another-key-of-callback-tokens-0123456789"


@pytest.fixture(scope="module")
def rotated(gateways: Gateways) -> Iterator[Gateway]:
    """A gateway with two keys of its own: the newest one makes tokens."""
    with gateways.start(callback_token_key=f"{'n' * 32},{OTHER_KEY}") as gateway:
        yield gateway


def orphans(gateway: Gateway, transaction_id: str) -> list[tuple[object, ...]]:
    rows = gateway.rows(
        "SELECT body, state, outcome, copies, host(source) AS source FROM callbacks"
        " WHERE orphan_of = %s ORDER BY id",
        transaction_id,
    )
    return [tuple(row.values()) for row in rows]


def test_a_callback_of_a_lost_payment_is_kept_as_an_orphan_and_answered_200(
    shared: Gateway, new_phone: Phones
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    lose(shared, transaction_id)
    since = Since()

    for _ in range(2):
        response = post(shared, path, b"lost")
        assert (response.status_code, response.text) == (200, ACCEPTED)

    row = (b"lost", "QUARANTINED", "orphan", 2, "127.0.0.1")
    assert orphans(shared, transaction_id) == [row]
    assert since.of("mpesa_callbacks_total", outcome="orphan") == 2
    assert since.of("mpesa_callbacks_total", outcome="received") == 2


@pytest.mark.parametrize("secret", ["00" * 16, None], ids=["zeros", "of another payment"])
def test_a_token_with_another_mac_and_no_payment_is_not_found(
    shared: Gateway, new_phone: Phones, secret: str | None
) -> None:
    _, path = paid_silently(shared, new_phone("4042"))
    missing = uuid.uuid4()

    response = post(shared, f"/callback/{missing.hex}{secret or path[-32:]}")

    assert_problem(response, 404, "not-found")
    assert orphans(shared, str(missing)) == []


def test_an_orphan_is_applied_once_its_payment_is_there_again(
    shared: Gateway, new_phone: Phones
) -> None:
    phone = new_phone("4042")
    transaction_id, path = paid_silently(shared, phone)
    (row,) = shared.rows(
        "SELECT * FROM transactions WHERE internal_transaction_id = %s", transaction_id
    )
    lose(shared, transaction_id)
    body = callback_body(row["checkout_request_id"], phone=phone, receipt=f"R{phone[-8:]}")
    assert_accepted(post(shared, path, body))
    shared.sweep()
    assert [it[2] for it in orphans(shared, transaction_id)] == ["orphan"]

    bring_back(shared, row)
    shared.sweep()
    applied(shared, transaction_id)

    assert shared.transaction(transaction_id)["status"] == "COMPLETED"
    assert [(it["state"], it["outcome"]) for it in kept(shared, transaction_id)] == [
        ("APPLIED", "completed")
    ]


@pytest.mark.parametrize(("key", "status"), [("n" * 32, 200), (OTHER_KEY, 200), ("o" * 32, 404)])
def test_the_keys_before_the_newest_are_recognised(rotated: Gateway, key: str, status: int) -> None:
    token = TokenKeys((derived_key([key], TOKEN_PURPOSE),)).make(uuid.uuid4(), bytes(16))
    assert post(rotated, f"/callback/{token.text}", b"1").status_code == status


def test_the_key_derived_from_the_default_merchant_is_recognised_beside_configured_ones(
    shared: Gateway, rotated: Gateway
) -> None:
    token = shared.services.config.token_keys.make(uuid.uuid4(), bytes(16))
    assert post(rotated, f"/callback/{token.text}", b"1").status_code == 200


def test_a_random_token_of_an_earlier_release_settles_by_its_row(
    shared: Gateway, new_phone: Phones
) -> None:
    """Its digest is in the row, whatever made it."""
    phone = new_phone("4042")
    transaction_id, path = paid_silently(shared, phone)
    shared.execute(
        "UPDATE transactions SET callback_secret_sha256 = sha256(%s)"
        " WHERE internal_transaction_id = %s",
        bytes(16),
        transaction_id,
    )
    assert_problem(post(shared, path), 404, "not-found")
    assert_accepted(post(shared, path[:-32] + "0" * 32, json.dumps({"a": 1}).encode()))
    assert len(kept(shared, transaction_id)) == 1


def test_an_orphan_from_an_address_outside_its_merchants_list_stays_in_quarantine(
    gateways: Gateways, new_phone: Phones, tmp_path: Path
) -> None:
    """The list is the merchant's, which only the payment tells: it is checked when that appears."""
    elsewhere = {"allowedCIDRs": ["203.0.113.0/24"]}
    write_merchant(tmp_path, "listed.json", name="shops/listed", key="k" * 32, callback=elsewhere)
    with gateways.start(merchants_dir=str(tmp_path)) as gateway:
        phone = new_phone("4042")
        transaction_id, path = paid_silently(gateway, phone)
        (row,) = gateway.rows(
            "SELECT * FROM transactions WHERE internal_transaction_id = %s", transaction_id
        )
        lose(gateway, transaction_id)
        assert_accepted(post(gateway, path, callback_body(row["checkout_request_id"])))
        bring_back(gateway, {**row, "merchant": "shops/listed"})
        gateway.sweep()

        (callback,) = kept(gateway, transaction_id)
        assert (callback["state"], callback["outcome"]) == ("QUARANTINED", "source_not_allowed")

"""Callbacks that Safaricom never sent: guessed, replayed, and turned to another payment."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.bodies import callback_body
from harness.callbacks import assert_accepted, count_kept, kept, post, token_of
from harness.gateway import Gateway, Gateways
from harness.initiate import SILENT
from harness.merchants import write_merchant
from harness.problems import assert_problem
from harness.settings import API_KEY

Phones = Callable[[str], str]
OTHER_KEY = "key-of-the-attacking-merchant"
GUESSES = 500


@pytest.fixture(scope="module")
def market(gateways: Gateways, tmp_path_factory: Any) -> Iterator[Gateway]:
    """A gateway as in production: callbacks settle by token only. Two merchants."""
    merchants: Path = tmp_path_factory.mktemp("merchants")
    write_merchant(merchants, "other.json", name="shops/other", key=OTHER_KEY, shortCode="600300")
    with gateways.start(merchants_dir=str(merchants), callback_token_required="true") as gateway:
        yield gateway


class Payment:
    """A payment that nobody has paid, and what an attacker wants to know about it."""

    def __init__(self, gateway: Gateway, phone: str, key: str = API_KEY) -> None:
        self.gateway, self.key = gateway, key
        self.id = gateway.pay(phone, key=key)
        self.checkout = gateway.checkout_request_id(phone)
        self.token = token_of(gateway, phone)

    @property
    def path(self) -> str:
        return f"/callback/{self.token}"

    @property
    def status(self) -> str:
        view = self.gateway.get(f"/transactions/{self.id}", key=self.key).json()
        return str(view["status"])

    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in kept(self.gateway, self.id)]


@pytest.fixture
def victim(market: Gateway, new_phone: Phones) -> Payment:
    return Payment(market, new_phone(SILENT))


@pytest.fixture
def own(market: Gateway, new_phone: Phones) -> Payment:
    """The attacker's: it knows its CheckoutRequestID and, being the worst case, its token."""
    return Payment(market, new_phone(SILENT), key=OTHER_KEY)


def test_guessed_tokens_settle_nothing_and_fill_no_table(market: Gateway, victim: Payment) -> None:
    """Among them the victim's own id (an attacker may know it) with secrets of every kind."""
    chance = random.Random(7)  # noqa: S311 - the guesses of a test, the same in every run
    before = count_kept(market)
    body = callback_body(victim.checkout)
    for _ in range(GUESSES):
        secret = f"{chance.getrandbits(128):032x}"
        name = chance.choice([victim.token[:32], f"{chance.getrandbits(128):032x}"])
        assert post(market, f"/callback/{name}{secret}", body).status_code == 404
    for position in range(32, 64):
        wrong = "0" if victim.token[position] != "0" else "1"
        guess = victim.token[:position] + wrong + victim.token[position + 1 :]
        assert_problem(post(market, f"/callback/{guess}", body), 404, "not-found")
    market.work()

    assert count_kept(market) == before
    assert victim.status == "PENDING"


def test_an_unknown_token_is_answered_like_a_known_id_with_a_wrong_secret(
    market: Gateway, victim: Payment
) -> None:
    """Else the answers would tell which transactions exist."""
    known = post(market, f"/callback/{victim.token[:32]}{'0' * 32}")
    unknown = post(market, f"/callback/{'1' * 32}{'0' * 32}")
    nonsense = post(market, "/callback/nonsense")

    assert known.status_code == 404
    assert known.json() == unknown.json() == nonsense.json()
    differing = {"date"}
    assert [known.headers[it] for it in known.headers if it.lower() not in differing] == [
        unknown.headers[it] for it in unknown.headers if it.lower() not in differing
    ]


def test_the_plain_path_settles_nothing_where_tokens_are_required(
    market: Gateway, victim: Payment
) -> None:
    assert_accepted(post(market, "/callback", callback_body(victim.checkout)))
    market.work()

    assert victim.status == "PENDING"
    (row,) = market.rows(
        "SELECT outcome FROM callbacks WHERE NOT by_token ORDER BY id DESC LIMIT 1"
    )
    assert row["outcome"] == "token_required"


def test_the_token_of_another_merchants_payment_does_not_settle_this_one(
    market: Gateway, victim: Payment, own: Payment
) -> None:
    """The attacker posts to its own URL, naming the victim's payment in the body."""
    assert_accepted(post(market, own.path, callback_body(victim.checkout)))
    market.work()

    assert (victim.status, own.status) == ("PENDING", "PENDING")
    assert victim.outcomes() == []
    assert own.outcomes() == ["checkout_request_id_mismatch"]


def test_tokens_cannot_be_put_together(market: Gateway, victim: Payment, own: Payment) -> None:
    for token in (victim.token[:32] + own.token[32:], own.token[:32] + victim.token[32:]):
        assert_problem(post(market, f"/callback/{token}"), 404, "not-found")
    assert (victim.status, own.status) == ("PENDING", "PENDING")


@pytest.mark.parametrize("amount", [1, 9, 11, "10.5", -10, 1e300, 250_000])
def test_a_receipt_for_another_amount_settles_nothing(
    market: Gateway, victim: Payment, amount: Any
) -> None:
    """Who pays one shilling must not get what ten buy."""
    assert_accepted(post(market, victim.path, callback_body(victim.checkout, amount=amount)))
    market.work()

    assert victim.status == "PENDING"


def test_a_receipt_that_paid_for_one_thing_does_not_pay_for_another(
    market: Gateway, victim: Payment, new_phone: Phones
) -> None:
    paid = Payment(market, new_phone(SILENT))
    assert_accepted(post(market, paid.path, callback_body(paid.checkout, receipt="UJ22FORGED")))
    market.work()
    assert paid.status == "COMPLETED"

    body = callback_body(victim.checkout, receipt="UJ22FORGED")
    assert_accepted(post(market, victim.path, body))
    market.work()

    assert victim.status == "PENDING"
    assert victim.outcomes() == ["receipt_reused"]


def test_a_callback_that_is_replayed_is_one_end_and_one_webhook(
    market: Gateway, victim: Payment
) -> None:
    """As it was, with other white space, with its members in another order."""
    body = callback_body(victim.checkout, receipt="UJ22REPLAY")
    loose = json.dumps(json.loads(body), indent=2).encode()
    turned = json.dumps({"x": 1, **json.loads(body)}).encode()
    for copy in (body, body, loose, turned, body):
        assert_accepted(post(market, victim.path, copy))
        market.work()

    assert victim.status == "COMPLETED"
    assert len(market.receiver.of(victim.id)) == 1
    (row,) = market.rows(
        "SELECT count(*) AS ends FROM transaction_events e JOIN transactions t"
        " ON t.id = e.transaction_id WHERE t.internal_transaction_id = %s"
        " AND e.kind IN ('completed', 'failed')",
        victim.id,
    )
    assert row["ends"] == 1


@pytest.mark.parametrize("code", [1032, 1, 2001, "SFC_IC0003", "0 "])
def test_a_later_forgery_moves_no_end(market: Gateway, victim: Payment, code: Any) -> None:
    # One of its own: the gateway is shared, and a receipt belongs to one payment.
    receipt = f"UJ22E{zlib.crc32(str(code).encode()) % 100_000:05}"
    assert_accepted(post(market, victim.path, callback_body(victim.checkout, receipt=receipt)))
    market.work()
    forged = json.loads(callback_body(victim.checkout, receipt="UJ22OTHER1"))
    forged["Body"]["stkCallback"]["ResultCode"] = code
    assert_accepted(post(market, victim.path, json.dumps(forged).encode()))
    market.work()

    view = market.transaction(victim.id)
    assert view["status"] == "COMPLETED"
    assert view["metadata"]["MpesaReceiptNumber"] == receipt

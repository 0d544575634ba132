"""The payer who guesses Safaricom's id of his own push, without any key and any token.

An id is `ws_CO_`, the second of the push, one to three digits, and the payer's own number. On the
plain path it is all that a callback is matched by, where tokens are not required.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network

import pytest
from requests import Response

from harness.bodies import callback_body
from harness.callbacks import assert_accepted, count_kept, post
from harness.gateway import Gateway, Gateways
from harness.initiate import SILENT as SILENT_DIGITS
from harness.problems import assert_problem
from mpesa_gateway.api.guesses import UNMATCHED_PER_MINUTE, UNMATCHED_PER_MINUTE_STRANGERS, Guesses
from mpesa_gateway.errors import RateLimitedError

SILENT = f"25471234{SILENT_DIGITS}"
GUESSES = 2000
ADDRESSES = 500
# The true id is tried when many others have been: with luck alone a payer hits it no earlier.
TRUE_ONE_AT = 700


@pytest.fixture
def gateway(gateways: Gateways) -> Iterator[Gateway]:
    """As it comes: any address may call back, and a token is not required. A fresh limit."""
    with gateways.start(trusted_proxies="127.0.0.1/32") as gateway:
        yield gateway


def assert_limited(statuses: Counter[int], kept: int, per_minute: int) -> None:
    """What was answered 200 is stored; a 503 of a busy machine may be stored, too."""
    assert set(statuses) <= {200, 429, 503}
    assert statuses[429] > statuses[200]
    assert statuses[200] <= kept <= statuses[200] + statuses[503]
    assert kept <= 3 * per_minute


def candidates(checkout: str) -> list[str]:
    """What the payer tries: ids of the second in which he clicked, and of others."""
    stem, phone = checkout[:20], checkout[-9:]
    found = [
        f"{stem}{number}{phone}" for number in range(1000) if stem + str(number) + phone != checkout
    ]
    earlier = f"{stem[:-1]}{(int(stem[-1]) + 1) % 10}"
    found += [f"{earlier}{number}{phone}" for number in range(1000)]
    return [*found[:TRUE_ONE_AT], checkout, *found[TRUE_ONE_AT:]][:GUESSES]


def test_two_thousand_guessed_ids_settle_nothing_and_fill_no_table(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    bodies = [
        callback_body(it, receipt="A7944B05D7")
        for it in candidates(gateway.checkout_request_id(SILENT))
    ]
    with ThreadPoolExecutor(8) as payer:
        statuses = Counter(
            payer.map(lambda body: gateway.post("/callback", body).status_code, bodies)
        )
    gateway.work()

    assert_limited(statuses, count_kept(gateway), UNMATCHED_PER_MINUTE)
    view = gateway.transaction(transaction_id)
    assert (view["status"], view["metadata"]) == ("PENDING", None)
    assert gateway.receiver.requests == []


def test_guesses_from_five_hundred_addresses_are_limited_together(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    checkout, path = gateway.checkout_request_id(SILENT), gateway.callback_path(SILENT)

    def guess(number: int, guessed: str) -> int:
        source = f"198.51.{100 + number % ADDRESSES // 250}.{number % 250 + 1}"
        return post(gateway, "/callback", callback_body(guessed), source=source).status_code

    with ThreadPoolExecutor(8) as crowd:
        statuses = Counter(crowd.map(guess, range(GUESSES), candidates(checkout)))
    gateway.work()

    assert_limited(statuses, count_kept(gateway), UNMATCHED_PER_MINUTE_STRANGERS)
    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    # The crowd costs nothing to a callback that has its token, wherever it comes from.
    assert_accepted(post(gateway, path, callback_body(checkout), source="198.51.100.1"))
    gateway.work()
    assert gateway.transaction(transaction_id)["status"] == "COMPLETED"


def test_the_crowd_of_strangers_costs_the_listed_nothing() -> None:
    guesses = Guesses((ip_network("196.201.214.0/24"),), clock=lambda: 0.0)
    for number in range(UNMATCHED_PER_MINUTE_STRANGERS):
        guesses.count(ip_address(f"198.51.100.{number}"))
    with pytest.raises(RateLimitedError):
        guesses.check(ip_address("198.51.100.200"))

    guesses.count(ip_address("196.201.214.200"))


def test_a_refusal_says_so_and_when_to_come_again(gateway: Gateway) -> None:
    answers = until_refused(lambda _: post(gateway, "/callback", b"x"))

    for accepted in answers[:-1]:
        assert_accepted(accepted)
    assert_problem(answers[-1], 429, "rate-limited")
    assert answers[-1].headers["Retry-After"] == "60"


def until_refused(ask: Callable[[int], Response]) -> list[Response]:
    """The answers up to the first 429; a slow machine gives an address some more meanwhile."""
    answers: list[Response] = []
    while not answers or answers[-1].status_code != 429:
        assert len(answers) < 10 * UNMATCHED_PER_MINUTE
        answers.append(ask(len(answers)))
    return answers


def test_each_address_has_a_limit_of_its_own_and_a_token_has_none(gateway: Gateway) -> None:
    gateway.pay(SILENT)
    path = gateway.callback_path(SILENT)
    refused = until_refused(lambda _: post(gateway, "/callback", b"x", source="198.51.100.7"))
    body = callback_body(gateway.checkout_request_id(SILENT))

    assert len(refused) > UNMATCHED_PER_MINUTE
    # The true one neither, as long as the machine gives it no time.
    refusals = (post(gateway, "/callback", it, source="198.51.100.7") for it in [b"x", body] * 5)
    assert [it.status_code for it in refusals].count(429) >= 2
    assert_accepted(post(gateway, "/callback", body, source="198.51.100.8"))
    assert_accepted(post(gateway, path, body, source="198.51.100.7"))
    # Of IPv6 a /64 is one address.
    until_refused(lambda it: post(gateway, "/callback", b"x", source=f"2a00:1450::{it:x}"))
    assert_accepted(post(gateway, "/callback", b"x", source="2a00:1450:0:1::1"))


def test_what_names_a_push_is_not_counted(gateway: Gateway) -> None:
    gateway.pay(SILENT)
    body = callback_body(gateway.checkout_request_id(SILENT))

    for _ in range(2 * UNMATCHED_PER_MINUTE):
        assert_accepted(gateway.post("/callback", body))


def test_a_guess_from_before_the_push_is_never_offered_again(gateway: Gateway) -> None:
    """He sprays the ids of a second to come, and clicks then."""
    gateway.next_push(CheckoutRequestID="ws_CO_011220261200001254712348888")
    gateway.post("/callback", callback_body("ws_CO_011220261200001254712348888"))
    gateway.work()
    gateway.clock.advance(minutes=1)

    transaction_id = gateway.pay(SILENT)
    assert gateway.checkout_request_id(SILENT) == "ws_CO_011220261200001254712348888"
    gateway.work()
    gateway.sweep()

    assert gateway.transaction(transaction_id)["status"] == "PENDING"

"""POST /initiate: tokens that Safaricom rejects or refuses, renewed once and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from harness.gateway import Gateway
from harness.initiate import assert_failed, assert_pending
from harness.problems import assert_problem
from harness.receiver import Answer
from harness.safaricom import HTML, FakeSafaricom, accepted, error

Phones = Callable[[str], str]


def test_a_rejected_token_is_renewed_and_the_push_sent_once_more(gateway: Gateway) -> None:
    gateway.pay("254712344042")
    requests.post(f"{gateway.simulator.url}/expire-tokens", timeout=5).raise_for_status()

    gateway.pay("254722340000")

    gateway.simulator.wait_until_idle()
    ledger = gateway.simulator.ledger()
    assert [push["accepted"] for push in ledger["pushes"]] == [True, False, True]
    assert [debit["phone"] for debit in ledger["debits"]] == ["254722340000"]
    assert len(ledger["tokens"]) == 2


def test_wrong_credentials_are_refused_and_nothing_is_sent(gateway: Gateway) -> None:
    # Safaricom answers 400 with an empty body.
    gateway.simulator.change(credentials={"another-key": "another-secret"})

    document = assert_problem(gateway.initiate(), 502, "refused-by-safaricom")

    view = assert_failed(gateway, document, "credentials_refused")
    assert view["push"] == "REFUSED"
    assert gateway.simulator.ledger()["pushes"] == []


REJECTED = [
    (404, error("404.001.03", "Invalid Access Token")),
    (401, error("401.003.01", "Error Occurred - Invalid Access Token - abc")),
    (400, error("400.003.01", "Invalid Access Token")),
    (401, error("401.002.01", "Error Occurred - Invalid Access Token")),
]


@pytest.mark.parametrize("rejected", REJECTED, ids=lambda it: str(it[1]["errorCode"]))
def test_every_form_of_a_rejected_token_is_tried_once_with_a_new_one(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, rejected: tuple[int, Any]
) -> None:
    safaricom.token("old")
    safaricom.push(*rejected)
    safaricom.token("new")
    answer = accepted()
    safaricom.push(200, answer)

    view = assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "ACCEPTED")

    assert safaricom.pushed == ["old", "new"]
    assert view["checkout_request_id"] == answer["CheckoutRequestID"]


@pytest.mark.parametrize("rejected", REJECTED, ids=lambda it: str(it[1]["errorCode"]))
def test_a_fresh_token_rejected_again_means_refused_credentials(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, rejected: tuple[int, Any]
) -> None:
    safaricom.token("old")
    safaricom.push(*rejected)
    safaricom.token("new")
    safaricom.push(*rejected)

    document = assert_problem(by_hand.initiate(new_phone("0000")), 502, "refused-by-safaricom")

    assert safaricom.pushed == ["old", "new"]
    assert_failed(by_hand, document, "credentials_refused")


@pytest.mark.parametrize(
    ("second", "push", "status"),
    [((500, error("500.003.02")), "NOT_SENT", 503), ((503, HTML), "UNKNOWN", 201)],
    ids=["busy", "html"],
)
def test_the_second_push_is_judged_like_the_first(
    by_hand: Gateway,
    safaricom: FakeSafaricom,
    new_phone: Phones,
    second: tuple[int, Any],
    push: str,
    status: int,
) -> None:
    safaricom.token("old")
    safaricom.push(*REJECTED[0])
    safaricom.token("new")
    safaricom.push(*second)

    response = by_hand.initiate(new_phone("0000"))

    assert response.status_code == status
    assert by_hand.transaction(response.json()["transaction_id"])["push"] == push
    assert safaricom.pushed == ["old", "new"]


@pytest.mark.parametrize(
    ("status", "body", "slug"),
    [
        (400, b"", "refused-by-safaricom"),
        (401, b"", "refused-by-safaricom"),
        (400, json.dumps(error("400.008.01")).encode(), "refused-by-safaricom"),
        (503, HTML.encode(), "not-sent"),
        (500, b"", "not-sent"),
        (429, b"", "not-sent"),
        (404, b"", "not-sent"),
        (200, b"", "not-sent"),
        (200, b"{}", "not-sent"),
        (200, b'{"access_token": ""}', "not-sent"),
        (200, b'{"access_token": "a\\r\\nX: b"}', "not-sent"),
        (200, b'{"access_token": 7}', "not-sent"),
        (302, b"", "not-sent"),
    ],
    ids=lambda it: repr(it)[:32],
)
def test_without_a_token_nothing_is_pushed(
    by_hand: Gateway,
    safaricom: FakeSafaricom,
    new_phone: Phones,
    status: int,
    body: bytes,
    slug: str,
) -> None:
    safaricom.default = Answer(status, {"Location": "http://127.0.0.1:1/"}, body)

    response = by_hand.initiate(new_phone("0000"))

    document = assert_problem(response, 503 if slug == "not-sent" else 502, slug)
    assert_failed(by_hand, document, "not_sent" if slug == "not-sent" else "credentials_refused")
    assert safaricom.pushed == []

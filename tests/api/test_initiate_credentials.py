"""POST /initiate: shared apps, tokens that die, credentials that are refused for a moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daraja_simulator.settings import Settings
from harness.gateway import Gateway, Gateways
from harness.initiate import assert_failed, assert_pending
from harness.merchants import write_merchant
from harness.problems import assert_problem
from harness.receiver import Answer
from harness.safaricom import FakeSafaricom, accepted, error
from harness.settings import PASSKEY

Phones = Callable[[str], str]
REJECTED = (404, error("404.001.03", "Invalid Access Token"))
# What Apigee, which stands in front of Daraja, says of a token (public issues).
FAULT = {
    "fault": {
        "faultstring": "Invalid Access Token",
        "detail": {"errorcode": "keymanagement.service.invalid_access_token"},
    }
}
REFUSED = Answer(400)
PAYMENTS = 40


@pytest.fixture
def crowded(gateways: Gateways, tmp_path: Path) -> Iterator[Gateway]:
    """Two merchants of one app; one of them has its secret wrong."""
    for name, secret in (("victim", "right"), ("thief", "WRONG")):
        write_merchant(
            tmp_path,
            f"{name}.json",
            name=f"shops/{name}",
            key=f"key-of-{name}",
            shortCode="600100" if name == "victim" else "600200",
            credentials={
                "consumerKey": "one-app",
                "consumerSecret": secret,
                "passkey": PASSKEY,
            },
        )
    safaricom = Settings(callback_delay=0.0, credentials={"one-app": "right"})
    with gateways.start(safaricom=safaricom, merchants_dir=str(tmp_path)) as gateway:
        yield gateway


def test_who_has_an_apps_key_and_not_its_secret_gets_and_spoils_no_token(
    crowded: Gateway, new_phone: Phones
) -> None:
    stopping = threading.Event()
    thefts: list[int] = []

    def hammer() -> None:
        while not stopping.is_set():
            response = crowded.initiate(new_phone("4042"), key="key-of-thief")
            thefts.append(response.status_code)

    thieves = [threading.Thread(target=hammer) for _ in range(3)]
    for thief in thieves:
        thief.start()
    paid = [
        crowded.initiate(new_phone("4042"), key="key-of-victim").status_code
        for _ in range(PAYMENTS)
    ]
    stopping.set()
    for thief in thieves:
        thief.join()

    assert paid == [201] * PAYMENTS
    assert thefts
    assert set(thefts) == {502}
    ledger = crowded.simulator.ledger()
    assert len(ledger["tokens"]) == 1
    assert len(ledger["pushes"]) == PAYMENTS


@pytest.mark.parametrize(
    "answer",
    [
        FAULT,
        error("401.999.99", "Error Occurred - Invalid Access Token - x"),
        {"fault": {"faultstring": "Invalid access token", "detail": {"errorcode": "else"}}},
        {
            "fault": {
                "faultstring": "Access Token expired",
                "detail": {"errorcode": "keymanagement.service.access_token_expired"},
            }
        },
    ],
    ids=["the API gateway's fault", "code that nobody lists", "another fault", "expired"],
)
def test_words_about_a_dead_token_end_it_on_every_path(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, answer: object
) -> None:
    """Nobody documents that such a push was not sent, so this one is not sent again."""
    safaricom.token("dead")
    safaricom.push(401, answer)
    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "UNKNOWN")
    safaricom.token("new")
    safaricom.push(200, accepted())
    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "ACCEPTED")

    assert safaricom.pushed == ["dead", "new"]


def test_a_fresh_token_that_is_refused_gets_one_more_attempt(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    for token in ("old", "fresh"):
        safaricom.token(token)
        safaricom.push(*REJECTED)
    safaricom.token("fresher")
    safaricom.push(200, accepted())

    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "ACCEPTED")
    assert safaricom.pushed == ["old", "fresh", "fresher"]


def test_an_empty_400_of_oauth_gets_one_more_attempt(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    safaricom.answers.append(REFUSED)
    safaricom.token("token")
    safaricom.push(200, accepted())

    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "ACCEPTED")


@pytest.fixture
def working(by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones) -> Gateway:
    """A gateway whose credentials worked just now, and whose token is dead."""
    safaricom.token("good")
    safaricom.push(200, accepted())
    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "ACCEPTED")
    safaricom.push(*REJECTED)
    return by_hand


def test_credentials_that_worked_lately_are_not_called_wrong(
    working: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    safaricom.default = REFUSED

    response = working.initiate(new_phone("0000"))

    document = assert_problem(response, 503, "not-sent")
    assert int(response.headers["Retry-After"]) > 0
    assert_failed(working, document, "not_sent")
    assert safaricom.pushed == ["good", "good"]


def test_fresh_tokens_refused_of_an_app_that_worked_lately_are_no_verdict_on_it(
    working: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    for token in ("fresh", "fresher"):
        safaricom.token(token)
        safaricom.push(*REJECTED)

    document = assert_problem(working.initiate(new_phone("0000")), 503, "not-sent")

    assert_failed(working, document, "not_sent")


def test_another_process_knows_that_they_worked(
    working: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    working.services.tokens._local.clear()
    safaricom.default = REFUSED

    assert_problem(working.initiate(new_phone("0000")), 503, "not-sent")


def test_credentials_that_never_worked_are_refused_for_good(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    safaricom.default = REFUSED

    document = assert_problem(by_hand.initiate(new_phone("0000")), 502, "refused-by-safaricom")

    assert_failed(by_hand, document, "credentials_refused")
    assert "test-consumer-secret" not in json.dumps(document)
    assert "Compare the consumer key and the consumer secret" in document["detail"]
    assert len(safaricom.requests) == 2

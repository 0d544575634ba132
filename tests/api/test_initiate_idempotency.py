"""One key, one payment: replays, requests in flight, one prompt per phone, the merchant's rate."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.callbacks import applied
from harness.gateway import Gateway, open_gateway
from harness.merchants import write_merchant
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.settings import API_KEY
from harness.waiting import wait_for

DUKA_KEY = "key-of-duka"
SLOW_KEY = "key-of-the-merchant-with-a-rate"


@pytest.fixture
def shops(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    tmp_path: Path,
) -> Iterator[Gateway]:
    """A gateway with `default`, `shops/duka` and `shops/slow`, which may start two a minute."""
    write_merchant(tmp_path, "duka.json", name="shops/duka", key=DUKA_KEY)
    write_merchant(
        tmp_path,
        "slow.json",
        name="shops/slow",
        key=SLOW_KEY,
        shortCode="600200",
        limits={"initiatePerMinute": 2},
    )
    with open_gateway(
        database_url, redis_url, simulator, receiver, merchants_dir=str(tmp_path)
    ) as running:
        yield running


def post(gateway: Gateway, body: dict[str, Any], key: str = API_KEY) -> requests.Response:
    """Without a session, so that threads may use it."""
    return requests.post(
        f"{gateway.url}/initiate", json=body, headers={"X-Internal-Secret": key}, timeout=30
    )


def assert_replays(first: requests.Response, second: requests.Response) -> None:
    assert second.status_code == first.status_code
    assert second.content == first.content
    assert second.headers["Content-Type"] == first.headers["Content-Type"]
    assert "Retry-After" not in second.headers
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"


def pushes(gateway: Gateway) -> int:
    return len(gateway.simulator.ledger()["pushes"])


@pytest.mark.parametrize(
    ("phone", "status"),
    [("254712340000", 201), ("254712344000", 502), ("254712345002", 503), ("254712345040", 201)],
    ids=["accepted", "refused", "not sent", "unknown"],
)
def test_the_same_key_and_body_get_the_same_answer_and_nothing_is_sent_again(
    gateway: Gateway, phone: str, status: int
) -> None:
    body = gateway.body(phone)
    first = post(gateway, body)
    assert first.status_code == status

    for _ in range(3):
        assert_replays(first, post(gateway, body))

    assert pushes(gateway) == 1
    assert len(gateway.rows("SELECT * FROM transactions")) == 1
    requested = gateway.rows("SELECT * FROM transaction_events WHERE kind = 'requested'")
    assert len(requested) == 1


@pytest.mark.parametrize("phone", ["254712340000", "254712341032"], ids=["paid", "cancelled"])
def test_the_answer_stays_the_same_after_the_payment_has_ended(
    gateway: Gateway, phone: str
) -> None:
    body = gateway.body(phone)
    first = post(gateway, body)
    applied(gateway, first.json()["transaction_id"])
    assert gateway.transaction(first.json()["transaction_id"])["status"] != "PENDING"
    gateway.clock.advance(days=400)

    assert_replays(first, post(gateway, body))
    assert pushes(gateway) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"amount": 10},
        {"amount": "10.00"},
        {"amount": 10.0},
        {"account_reference": "Payment"},
        {"description": "Payment"},
    ],
    ids=str,
)
def test_the_same_body_written_in_another_way_is_the_same_body(
    gateway: Gateway, other: dict[str, Any]
) -> None:
    body = gateway.body()
    first = post(gateway, body)

    assert_replays(first, post(gateway, {**dict(reversed(body.items())), **other}))
    upper = {**body, "idempotency_key": body["idempotency_key"].upper()}
    assert_replays(first, post(gateway, upper))


OTHER_BODIES: list[dict[str, Any]] = [
    {"amount": "11"},
    {"phone": "254712340001"},
    {"webhook_url": "http://127.0.0.1:9999/other"},
    {"account_reference": "INV-2"},
    {"description": "Shoes"},
]


@pytest.mark.parametrize("other", OTHER_BODIES, ids=str)
def test_the_same_key_with_another_body_is_refused(gateway: Gateway, other: dict[str, Any]) -> None:
    body = gateway.body()
    post(gateway, body)

    assert_problem(post(gateway, {**body, **other}), 422, "key-reused")
    assert pushes(gateway) == 1
    assert len(gateway.rows("SELECT * FROM transactions")) == 1


@contextmanager
def in_flight(gateway: Gateway, body: dict[str, Any]) -> Iterator[list[Any]]:
    """The first request is on its way to Safaricom; its answer is in the list afterwards."""
    gateway.simulator.change(push_delay=1.5)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(post(gateway, body)))
    thread.start()
    try:
        wait_for(lambda: gateway.rows("SELECT * FROM transactions"), what="the intent")
        yield answers
    finally:
        thread.join()


def test_the_same_request_while_the_first_is_in_flight_is_told_to_wait(gateway: Gateway) -> None:
    body = gateway.body()
    with in_flight(gateway, body) as answers:
        second = post(gateway, body)
        assert not answers

    document = assert_problem(second, 409, "key-in-flight")
    assert document["retry_after"] == 1
    assert second.headers["Retry-After"] == "1"
    assert answers[0].status_code == 201
    assert_replays(answers[0], post(gateway, body))
    assert pushes(gateway) == 1


def test_another_body_is_refused_while_the_first_is_in_flight(gateway: Gateway) -> None:
    body = gateway.body()
    with in_flight(gateway, body) as answers:
        others = [post(gateway, {**body, **other}) for other in OTHER_BODIES]
        assert not answers

    for other in others:
        assert_problem(other, 422, "key-reused")
    assert answers[0].status_code == 201
    assert pushes(gateway) == 1


def at_once(calls: int, call: Any) -> list[requests.Response]:
    """The answers of so many calls that begin together."""
    barrier = threading.Barrier(calls)

    def run(number: int) -> requests.Response:
        barrier.wait(10)
        answer: requests.Response = call(number)
        return answer

    with ThreadPoolExecutor(calls) as threads:
        return list(threads.map(run, range(calls)))


def test_twenty_clients_with_one_key_at_once_make_one_push(gateway: Gateway) -> None:
    gateway.simulator.change(push_delay=0.2)
    body = gateway.body()

    answers = at_once(20, lambda _: post(gateway, body))

    ended = [answer for answer in answers if answer.status_code != 409]
    assert {answer.content for answer in ended} == {ended[0].content}
    assert {answer.status_code for answer in ended} == {201}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in ended) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409, "key-in-flight")
    # Whoever was told to wait gets the one answer.
    replayed = post(gateway, body)
    assert replayed.content == ended[0].content
    assert pushes(gateway) == 1
    assert len(gateway.rows("SELECT * FROM transactions")) == 1
    gateway.simulator.wait_until_idle()
    assert len(gateway.simulator.ledger()["debits"]) == 1


def test_twenty_clients_with_one_key_and_other_phones_at_once_make_one_push(
    gateway: Gateway,
) -> None:
    key = str(uuid.uuid4())

    answers = at_once(
        20, lambda n: post(gateway, gateway.body(f"25471{n:02d}30000", idempotency_key=key))
    )

    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 19
    assert pushes(gateway) == 1
    assert len(gateway.rows("SELECT * FROM transactions")) == 1


def test_twenty_clients_with_other_keys_and_one_phone_at_once_make_one_push(
    gateway: Gateway,
) -> None:
    gateway.simulator.change(push_delay=0.2)

    answers = at_once(20, lambda _: post(gateway, gateway.body()))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409, "prompt-open")
    assert pushes(gateway) == 1
    assert len(gateway.rows("SELECT * FROM transactions")) == 1


def test_two_merchants_may_use_the_same_key(shops: Gateway) -> None:
    body = shops.body("254712344042")
    other = {**body, "phone": "254722344042", "amount": "20"}

    first, second = post(shops, body), post(shops, other, DUKA_KEY)

    assert first.status_code == second.status_code == 201
    assert first.json()["transaction_id"] != second.json()["transaction_id"]
    assert "Idempotent-Replayed" not in second.headers
    assert_replays(first, post(shops, body))
    assert_replays(second, post(shops, other, DUKA_KEY))
    assert pushes(shops) == 2


def test_an_open_prompt_refuses_another_payment_on_that_phone_only(shops: Gateway) -> None:
    shops.simulator.change(callback_delay=60.0)
    first = post(shops, shops.body("254712340000"))
    assert first.status_code == 201
    before = shops.rows("SELECT count(*) FROM transaction_events")

    document = assert_problem(post(shops, shops.body("254712340000")), 409, "prompt-open")

    assert 1 <= document["retry_after"] <= 90
    assert shops.rows("SELECT count(*) FROM transaction_events") == before
    assert len(shops.rows("SELECT * FROM transactions")) == 1
    # Another phone is free, and so is the same phone for another short code.
    assert post(shops, shops.body("254712340001")).status_code == 201
    assert post(shops, shops.body("254712340000"), SLOW_KEY).status_code == 201
    assert len(shops.simulator.ledger(phone="254712340000")["pushes"]) == 2


def test_a_key_that_met_an_open_prompt_may_be_used_again(gateway: Gateway) -> None:
    transaction_id = gateway.pay("254712341032")
    body = gateway.body("254712341032")
    assert_problem(post(gateway, body), 409, "prompt-open")
    applied(gateway, transaction_id)

    again = post(gateway, body)

    assert again.status_code == 201
    assert "Idempotent-Replayed" not in again.headers


@pytest.mark.parametrize("phone", ["254712344042", "254712345041"], ids=["silent", "unknown"])
def test_a_prompt_counts_as_open_for_ninety_seconds_at_most(gateway: Gateway, phone: str) -> None:
    gateway.pay(phone)
    gateway.clock.advance(seconds=85)
    document = assert_problem(post(gateway, gateway.body(phone)), 409, "prompt-open")
    assert document["retry_after"] <= 5
    gateway.clock.advance(seconds=6)
    gateway.simulator.wait_until_idle()

    assert post(gateway, gateway.body(phone)).status_code == 201


@pytest.mark.parametrize("phone", ["254712344000", "254712345002"], ids=["refused", "not sent"])
def test_a_push_that_opened_no_prompt_leaves_the_phone_free(gateway: Gateway, phone: str) -> None:
    first = post(gateway, gateway.body(phone))
    second = post(gateway, gateway.body(phone))

    assert first.status_code == second.status_code
    assert first.json()["transaction_id"] != second.json()["transaction_id"]
    assert pushes(gateway) == 2


def test_a_merchant_above_its_rate_is_told_when_to_come_back_and_nothing_is_made(
    shops: Gateway,
) -> None:
    bodies = [shops.body(f"25471234{n}042") for n in range(3)]
    assert [post(shops, body, SLOW_KEY).status_code for body in bodies[:2]] == [201, 201]

    document = assert_problem(post(shops, bodies[2], SLOW_KEY), 429, "rate-limited")

    assert 1 <= document["retry_after"] <= 30
    assert len(shops.rows("SELECT * FROM transactions")) == 2
    assert pushes(shops) == 2
    # A replay is no new payment, and other merchants have rates of their own.
    assert post(shops, bodies[0], SLOW_KEY).headers["Idempotent-Replayed"] == "true"
    assert post(shops, shops.body("254722344042")).status_code == 201
    assert post(shops, shops.body("254732344042"), DUKA_KEY).status_code == 201


def test_bad_input_does_not_use_up_the_rate(shops: Gateway) -> None:
    for _ in range(5):
        bad = shops.body("254712344042", webhook_url=...)
        assert_problem(post(shops, bad, SLOW_KEY), 400, "invalid-input", "webhook_url")

    assert post(shops, shops.body("254712344042"), SLOW_KEY).status_code == 201
    assert post(shops, shops.body("254712354042"), SLOW_KEY).status_code == 201

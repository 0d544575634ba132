"""Outcomes of pushes whose Postgres stayed away for longer than a caller waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests
from prometheus_client import REGISTRY

from daraja_simulator.server import RunningSimulator
from harness.factories import make_transaction
from harness.gateway import Gateway, open_gateway
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.usecases import held_outcomes, payments
from mpesa_gateway.usecases.push_leases import SENDING_LEASE

Phones = Callable[[str], str]


def held() -> float:
    return REGISTRY.get_sample_value("mpesa_push_outcomes_held") or 0.0


@pytest.fixture
def gateway(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Gateway]:
    """A gateway whose callers wait for a moment only. Nobody saves what is held yet."""
    assert own_postgres.process.is_running()
    monkeypatch.setattr(payments, "SAVE_OUTCOME_S", 0.2)
    monkeypatch.setattr(held_outcomes, "STOP_S", 1.0)
    simulator.change(push_delay=0.5, callback_delay=60.0)
    with open_gateway(own_database_url, redis_url, simulator, receiver) as opened:
        wait_for(lambda: opened.get("/health").ok, what="the pool")
        yield opened
        opened.services.held_outcomes.stop()


@contextmanager
def postgres_gone_after_the_push(
    gateway: Gateway, server: EmbeddedPostgres, phone: str
) -> Iterator[requests.Response]:
    """Inside the block the caller has been answered, and Postgres is away."""
    answers: list[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(gateway.initiate(phone)))
    thread.start()
    wait_for(lambda: gateway.simulator.ledger(phone=phone)["pushes"], what="the push")
    server.stop()
    thread.join()
    yield answers[0]
    server.start()
    wait_for(lambda: gateway.get("/health").ok, what="Postgres to be back")


def assert_learned(gateway: Gateway, answer: requests.Response, phone: str) -> None:
    """The payment has the id that Safaricom gave it, and its push contradicts nothing."""
    transaction_id = answer.json()["transaction_id"]
    (push,) = gateway.simulator.ledger(phone=phone)["pushes"]
    view = gateway.transaction(transaction_id)
    assert view["push"] == "ACCEPTED"
    assert view["checkout_request_id"] == push["checkout_request_id"]
    assert view["attention"] is None
    kinds = gateway.rows("SELECT DISTINCT kind FROM transaction_events WHERE source = 'push'")
    assert {"kind": "contradicts"} not in kinds


def test_an_accepted_push_is_saved_when_postgres_is_back(
    gateway: Gateway, own_postgres: EmbeddedPostgres, new_phone: Phones
) -> None:
    phone = new_phone("0000")
    gateway.services.held_outcomes.start(gateway.notifier.notify)
    with postgres_gone_after_the_push(gateway, own_postgres, phone) as answer:
        assert answer.status_code == 201, answer.text
        assert held() == 1

    wait_for(lambda: held() == 0, what="the outcome to be saved")
    assert_learned(gateway, answer, phone)


def test_an_outcome_that_comes_after_the_sweeper_gave_up_is_used(
    gateway: Gateway, own_postgres: EmbeddedPostgres, new_phone: Phones
) -> None:
    phone = new_phone("0000")
    with postgres_gone_after_the_push(gateway, own_postgres, phone) as answer:
        assert answer.status_code == 201, answer.text
    gateway.clock.advance(seconds=SENDING_LEASE.total_seconds() + 1)
    gateway.sweep()
    assert gateway.transaction(answer.json()["transaction_id"])["push"] == "UNKNOWN"

    gateway.services.held_outcomes.start(gateway.notifier.notify)

    wait_for(lambda: held() == 0, what="the outcome to be saved")
    assert_learned(gateway, answer, phone)


def test_a_refusal_is_saved_when_postgres_is_back(
    gateway: Gateway, own_postgres: EmbeddedPostgres, new_phone: Phones
) -> None:
    """Its caller was answered 503 without an id; the same key then gets the truth."""
    phone = new_phone("4000")
    gateway.services.held_outcomes.start(gateway.notifier.notify)
    with postgres_gone_after_the_push(gateway, own_postgres, phone) as answer:
        assert_problem(answer, 503, "unavailable")

    wait_for(lambda: held() == 0, what="the outcome to be saved")
    rows = gateway.rows(
        "SELECT status, push_state, response_status FROM transactions ORDER BY id DESC LIMIT 1"
    )
    assert rows == [{"status": "FAILED", "push_state": "REFUSED", "response_status": 502}]


def test_without_room_an_outcome_is_not_held_and_the_end_does_not_wait_for_postgres(
    gateway: Gateway,
    own_postgres: EmbeddedPostgres,
    new_phone: Phones,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway.services.held_outcomes.start(gateway.notifier.notify)
    phone = new_phone("0000")
    with postgres_gone_after_the_push(gateway, own_postgres, phone):
        (only,) = gateway.services.held_outcomes._held
        outcome = only.outcome
        transaction = make_transaction()
        monkeypatch.setattr(held_outcomes, "MAX_HELD", 1)
        assert not gateway.services.held_outcomes.hold(transaction, outcome)

        gateway.services.held_outcomes.stop()
        assert "outcome of a push is lost" in caplog.text
        assert not gateway.services.held_outcomes.hold(transaction, outcome)

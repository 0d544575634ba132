"""POST /initiate while Safaricom cannot be reached, breaks off, or Postgres is away."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.gateway import Gateway, open_gateway
from harness.initiate import assert_failed, assert_pending
from harness.problems import assert_problem
from harness.receiver import Answer, Receiver
from harness.safaricom import ACCEPTED, FakeSafaricom
from harness.settings import API_KEY
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_devkit.processes import free_port
from mpesa_gateway.usecases.entrance import PLACES

Phones = Callable[[str], str]


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Close without an answer."""
    handler.close_connection = True


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Close with a TCP reset, as a load balancer does that lost its backend."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def half(handler: BaseHTTPRequestHandler) -> None:
    """Promise more than is sent."""
    body = json.dumps(ACCEPTED).encode()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + body)
    handler.close_connection = True


def noise(handler: BaseHTTPRequestHandler) -> None:
    """Not HTTP."""
    handler.wfile.write(b"\x15\x03\x01\x00\x02\x02\x46")
    handler.close_connection = True


def flood(handler: BaseHTTPRequestHandler) -> None:
    """More than anybody wants to read."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b" " * 1_000_000)
    handler.close_connection = True


@pytest.mark.parametrize("act", [cut, reset, half, noise, flood])
def test_a_connection_that_breaks_after_the_request_left_is_unknown_and_pending(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, act: Any
) -> None:
    safaricom.token()
    safaricom.answers.append(Answer(act=act))

    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "UNKNOWN")

    assert len(safaricom.pushed) == 1


def test_a_push_that_is_not_answered_in_time_is_unknown_and_pending(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    over = threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        over.wait(30)

    safaricom.token()
    safaricom.answers.append(Answer(act=hang))

    response = by_hand.initiate(new_phone("0000"))
    over.set()

    assert_pending(by_hand, response, "UNKNOWN")
    assert len(safaricom.pushed) == 1
    assert 14 < response.elapsed.total_seconds() < 20


def test_an_unreachable_safaricom_means_not_sent(
    database_url: str, redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    base_url = f"http://127.0.0.1:{free_port()}"
    with open_gateway(
        database_url, redis_url, simulator, receiver, safaricom_base_url=base_url
    ) as gateway:
        document = assert_problem(gateway.initiate(), 503, "not-sent")

        assert_failed(gateway, document, "not_sent")


def test_without_postgres_nothing_is_sent_and_the_key_is_still_free(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    with open_gateway(own_database_url, redis_url, simulator, receiver) as gateway:
        wait_for(lambda: gateway.get("/health").ok, what="the pool")
        own_postgres.stop()
        body = gateway.body("254712344042")
        headers = {"X-Internal-Secret": API_KEY}

        def post() -> requests.Response:
            url = f"{gateway.url}/initiate"
            return gateway.session.post(url, json=body, headers=headers, timeout=30)

        document = assert_problem(post(), 503, "unavailable")

        assert document["retry_after"] >= 1
        assert "transaction_id" not in document
        assert gateway.simulator.ledger() == {
            "pushes": [],
            "debits": [],
            "callbacks": [],
            "tokens": [],
            "queries": [],
        }
        own_postgres.start()
        wait_for(lambda: gateway.get("/health").ok, what="Postgres to be back")
        again = post()
        assert again.status_code == 201
        assert "Idempotent-Replayed" not in again.headers
        assert len(gateway.simulator.ledger()["pushes"]) == 1


def test_an_accepted_push_is_saved_although_postgres_went_away_meanwhile(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    simulator.change(push_delay=0.5, callback_delay=60.0)
    phone = "254733340000"
    answers: list[requests.Response] = []
    with open_gateway(own_database_url, redis_url, simulator, receiver) as gateway:
        thread = threading.Thread(target=lambda: answers.append(gateway.initiate(phone)))
        thread.start()
        wait_for(lambda: simulator.ledger(phone=phone)["pushes"], what="the push")
        own_postgres.stop()
        own_postgres.start()
        thread.join()

        assert answers[0].status_code == 201, answers[0].text
        view = gateway.transaction(answers[0].json()["transaction_id"])
        (push,) = simulator.ledger(phone=phone)["pushes"]
        assert view["push"] == "ACCEPTED"
        assert view["checkout_request_id"] == push["checkout_request_id"]


def test_more_than_can_begin_in_time_is_sent_away_and_nothing_was_created(
    by_hand: Gateway,
    safaricom: FakeSafaricom,
    new_phone: Phones,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entrance = by_hand.services.payments.entrance
    monkeypatch.setattr(entrance, "_patience_s", 0.0)
    phone = new_phone("0000")
    with ExitStack() as places:
        for _ in range(PLACES):
            places.enter_context(entrance.turn())
        refused = by_hand.initiate(phone)

    assert_problem(refused, 503, "unavailable")
    assert refused.headers["Retry-After"] == "2"
    assert by_hand.rows("SELECT FROM transactions WHERE phone = %s", phone) == []
    assert safaricom.pushed == []

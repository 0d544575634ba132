"""A push belongs to its process for as long as that lives, and to nobody soon after it died."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.hanging import children, send_all
from harness.processes import Processes
from harness.receiver import Receiver
from harness.waiting import wait_for
from harness.witnesses import Witnesses
from mpesa_gateway.usecases.push_leases import SENDING_LEASE

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LEASE_S = SENDING_LEASE.total_seconds()
# Two leases, and still less than a push may take.
SLOW_PUSH_S = 2 * LEASE_S + 1
# What a busy machine may need for a sweep and a commit.
LATE_S = 4.0


def initiate(gateway: Processes, port: int, receiver: Receiver) -> requests.Response:
    return gateway.initiate(
        port,
        amount="10",
        phone="254712340000",
        webhook_url=receiver.url,
        idempotency_key=str(uuid.uuid4()),
    )


def events(witnesses: Witnesses) -> list[tuple[str, str]]:
    rows = witnesses.rows("SELECT source, kind FROM transaction_events ORDER BY id")
    return [(it["source"], it["kind"]) for it in rows]


def push_state(witnesses: Witnesses) -> str | None:
    found = witnesses.rows("SELECT push_state FROM transactions")
    return found[0]["push_state"] if found else None


def test_a_push_that_outlasts_its_lease_stays_with_its_process(
    gateway: Processes,
    receiver: Receiver,
    witnesses: Witnesses,
    simulator: RunningSimulator,
    port: int,
) -> None:
    simulator.change(push_delay=SLOW_PUSH_S)
    gateway.api(port)
    gateway.worker(sweep_interval="200ms")
    begun = time.monotonic()

    assert initiate(gateway, port, receiver).status_code == 201
    assert time.monotonic() - begun >= SLOW_PUSH_S
    wait_for(lambda: receiver.requests, what="the webhook")
    assert ("push", "unknown") not in events(witnesses)
    witnesses.check(payments=1, repeats_allowed=False)


def test_a_push_whose_process_was_killed_is_taken_up_within_its_short_lease(
    gateway: Processes,
    receiver: Receiver,
    witnesses: Witnesses,
    simulator: RunningSimulator,
    port: int,
) -> None:
    simulator.change(push_delay=SLOW_PUSH_S)
    api = gateway.api(port)
    gateway.worker(sweep_interval="200ms")
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(initiate(gateway, port, receiver).status_code)
        except requests.RequestException as error:
            answers.append(type(error).__name__)

    client = threading.Thread(target=ask)
    client.start()
    wait_for(lambda: push_state(witnesses) == "SENDING", what="the push to leave")
    send_all([*children(api.pid), api.pid], signal.SIGKILL)
    wait_for(
        lambda: push_state(witnesses) == "UNKNOWN",
        timeout_s=LEASE_S + LATE_S,
        what="somebody to take it up",
    )
    client.join()
    assert answers == ["ConnectionError"]

"""Callbacks while Redis or Postgres is away: 200 means kept, and 503 comes at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.callbacks import assert_accepted, kept, paid_silently, post
from harness.gateway import Gateway, open_gateway
from harness.hanging import hung
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.serving import bound_socket, serve
from harness.settings import API_KEY, environment
from harness.waiting import PROMPTLY_S, wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_devkit.processes import free_port
from mpesa_gateway.config import Config
from mpesa_gateway.services import open_services
from mpesa_gateway.work_queue import Notifier, WorkQueue

Phones = Callable[[str], str]


def test_redis_away_changes_nothing(
    database_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    redis_url = f"redis://127.0.0.1:{free_port()}/0"
    sock = bound_socket()
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    config = Config.from_env(
        environment(
            database_url=database_url,
            redis_url=redis_url,
            base_url=simulator.url,
            callback_url=f"{url}/callback",
        )
    )
    notifier = Notifier(WorkQueue(redis_url))
    notifier.start()
    with ExitStack() as stack:
        stack.callback(notifier.stop)
        services = stack.enter_context(open_services(config))
        stack.enter_context(serve(services, notifier.notify, sock))
        body = {
            "amount": "10",
            "phone": "254712340000",
            "webhook_url": receiver.url,
            "idempotency_key": str(uuid.uuid4()),
        }
        headers = {"X-Internal-Secret": API_KEY}
        started = requests.post(f"{url}/initiate", json=body, headers=headers, timeout=30)
        assert started.status_code == 201, started.text
        simulator.wait_until_idle()
        # The callback that the simulator posted, and one more by hand.
        (callback,) = simulator.ledger()["callbacks"]
        assert callback["status"] == 200
        assert callback["duration_ms"] < 1000
        again = requests.post(callback["callback_url"], data=b"again", timeout=10)
        assert_accepted(again)
        assert again.elapsed.total_seconds() < 1
        assert requests.get(f"{url}/readyz", timeout=10).status_code == 200


@pytest.fixture
def mortal(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> Iterator[Gateway]:
    """A gateway whose Postgres may be taken away."""
    assert own_postgres.process.is_running()
    with open_gateway(own_database_url, redis_url, simulator, receiver) as gateway:
        wait_for(lambda: gateway.get("/health").ok, what="the pool")
        yield gateway


def assert_refused_promptly(gateway: Gateway, path: str) -> None:
    """Several at once: each hears 503 within two seconds, and the process is well."""

    def timed(number: int) -> tuple[float, requests.Response]:
        started = time.monotonic()
        response = post(gateway, path, b"%d" % number)
        return time.monotonic() - started, response

    with ThreadPoolExecutor(10) as threads:
        for seconds, response in threads.map(timed, range(10)):
            assert_problem(response, 503, "unavailable")
            assert seconds < PROMPTLY_S
    assert gateway.session.get(f"{gateway.url}/livez", timeout=5).status_code == 200


def test_a_stopped_postgres_means_503_at_once_and_200_when_it_is_back(
    mortal: Gateway, own_postgres: EmbeddedPostgres, new_phone: Phones
) -> None:
    transaction_id, path = paid_silently(mortal, new_phone("4042"))
    assert_accepted(post(mortal, path, b"before"))
    own_postgres.stop()

    assert_refused_promptly(mortal, path)
    assert_refused_promptly(mortal, "/callback")

    own_postgres.start()
    wait_for(lambda: post(mortal, path, b"after").status_code == 200, what="Postgres to be back")
    bodies = {bytes(row["body"]) for row in kept(mortal, transaction_id)}
    assert {b"before", b"after"} <= bodies


def test_a_hung_postgres_means_503_at_once_and_nothing_is_lost_by_that(
    mortal: Gateway, own_postgres: EmbeddedPostgres, new_phone: Phones
) -> None:
    transaction_id, path = paid_silently(mortal, new_phone("4042"))
    assert_accepted(post(mortal, path, b"before"))
    with hung(own_postgres.process.pid):
        assert_refused_promptly(mortal, path)
        assert_refused_promptly(mortal, "/callback")
    # Safaricom does not repeat what was answered 503: it is kept all the same if it can be.
    expected = {b"before", *(b"%d" % number for number in range(10))}

    def bodies() -> set[bytes]:
        return {bytes(row["body"]) for row in kept(mortal, transaction_id)}

    wait_for(lambda: bodies() == expected, what="what was told 503")
    assert_accepted(post(mortal, path, b"after"))

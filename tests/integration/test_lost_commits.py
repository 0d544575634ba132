"""A commit is done and its answer never comes: the connection broke at the worst moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest

from daraja_simulator.server import RunningSimulator
from harness.gateway import Gateway, open_gateway
from harness.proxy import Network, Proxy
from harness.receiver import Receiver

REFUSED = "254712344000"  # fails at once, so that a webhook is due without any callback


@dataclass
class Cut:
    """A gateway whose way to Postgres is ours."""

    gateway: Gateway
    network: Network


def through(proxy: Proxy, database_url: str) -> str:
    """The same database, by way of the proxy."""
    path = urlsplit(database_url).path
    return f"postgresql://postgres@127.0.0.1:{proxy.port}{path}?sslmode=disable&gssencmode=disable"


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def proxy(database_url: str, network: Network) -> Iterator[Proxy]:
    port = urlsplit(database_url).port
    assert port is not None
    with Proxy(port, network=network) as running:
        yield running


@pytest.fixture
def gateway(
    database_url: str,
    proxy: Proxy,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> Iterator[Gateway]:
    url = through(proxy, database_url)
    with open_gateway(url, redis_url, simulator, receiver, worker_concurrency="1") as running:
        running.database_url = database_url
        yield running


def test_the_proxy_swallows_the_answer_to_a_commit_that_was_done(
    database_url: str, proxy: Proxy, network: Network
) -> None:
    """Of a transaction, of a statement by itself, and of one that was prepared before."""
    with psycopg.connect(through(proxy, database_url), autocommit=True) as conn:
        conn.execute("CREATE TABLE seen (number integer)")
    for number, prepare in enumerate((False, True)):
        with psycopg.connect(through(proxy, database_url), autocommit=True) as conn:
            conn.execute("INSERT INTO seen VALUES (%s)", [10 + number], prepare=prepare)
            network.swallow = 1
            with pytest.raises(psycopg.OperationalError):
                conn.execute("INSERT INTO seen VALUES (%s)", [number], prepare=prepare)
    conn = psycopg.connect(through(proxy, database_url), autocommit=True)
    network.swallow = 1
    with pytest.raises(psycopg.OperationalError), conn.transaction():
        conn.execute("INSERT INTO seen VALUES (2)")
    conn.close()

    assert network.swallowed == 3
    with psycopg.connect(database_url) as conn:
        seen = [row[0] for row in conn.execute("SELECT number FROM seen ORDER BY number")]
    assert seen == [0, 1, 2, 10, 11]


def test_a_claim_whose_commit_was_not_heard_of_does_not_close_the_gate_for_ever(
    gateway: Gateway, network: Network
) -> None:
    assert gateway.initiate(REFUSED).status_code == 502
    network.swallow = 1
    gateway.work()
    assert network.swallowed == 1
    assert gateway.receiver.requests == []

    gateway.clock.advance(seconds=16)
    gateway.sweep()

    assert len(gateway.receiver.requests) == 1
    assert gateway.rows("SELECT state FROM deliveries") == [{"state": "DELIVERED"}]


def test_a_refused_push_whose_commit_was_not_heard_of_contradicts_nothing(
    gateway: Gateway, network: Network
) -> None:
    """It is saved again, and says the same."""
    assert gateway.initiate("254712340000").status_code == 201  # the token is there from now on
    network.swallow = 0
    before = network.swallowed

    response = initiate_and_swallow_its_outcome(gateway, network)

    assert network.swallowed == before + 1
    assert response == 502
    kinds = [it["kind"] for it in gateway.rows("SELECT kind FROM transaction_events ORDER BY id")]
    assert kinds[-2:] == ["requested", "failed"]


def initiate_and_swallow_its_outcome(gateway: Gateway, network: Network) -> int:
    """Safaricom refuses slowly, so that only the outcome's commit is left when the answers stop."""
    gateway.simulator.change(push_delay=0.6)

    def arm() -> None:
        network.swallow = 1

    timer = threading.Timer(0.3, arm)
    timer.start()
    status = gateway.initiate(REFUSED).status_code
    timer.join()
    return status

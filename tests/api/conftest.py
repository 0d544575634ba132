"""Gateways that many tests share, and a Postgres that a test may stop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.gateway import Gateway, Gateways, open_gateway
from harness.initiate import write_merchants
from harness.processes import processes
from harness.receiver import Answer, Receiver
from harness.safaricom import FakeSafaricom
from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_devkit.processes import free_port


@pytest.fixture(scope="module")
def shared(gateways: Gateways) -> Iterator[Gateway]:
    """One gateway for all tests of a file that keep out of each other's way: see `new_phone`."""
    with gateways.start() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def new_phone() -> Callable[[str], str]:
    """A phone that no test used before, with these last four digits."""
    numbers = itertools.count(10_000)
    return lambda digits: f"254{next(numbers)}{digits}"


@pytest.fixture(scope="module")
def public(
    gateways: Gateways,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway that lets webhooks reach the public internet only, with merchants of each kind."""
    merchants = tmp_path_factory.mktemp("merchants")
    write_merchants(merchants)
    with gateways.start(webhook_allow_private="false", merchants_dir=str(merchants)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def _by_hand(
    postgres: EmbeddedPostgres, redis_server: EmbeddedRedis
) -> Iterator[tuple[Gateway, FakeSafaricom]]:
    url = postgres.create_database("by_hand", "template_gateway")
    with (
        FakeSafaricom() as safaricom,
        RunningSimulator() as unused,
        Receiver() as receiver,
        open_gateway(
            url,
            redis_server.url(),
            unused,
            receiver,
            safaricom_base_url=f"http://127.0.0.1:{safaricom.port}",
        ) as running,
    ):
        yield running, safaricom
    postgres.drop_database("by_hand")


@pytest.fixture
def safaricom(_by_hand: tuple[Gateway, FakeSafaricom]) -> FakeSafaricom:
    """What `by_hand` talks to; it has seen and says nothing yet."""
    running = _by_hand[1]
    running.answers.clear()
    running.requests.clear()
    running.default = Answer(500)
    return running


@pytest.fixture
def by_hand(_by_hand: tuple[Gateway, FakeSafaricom], redis_url: str) -> Gateway:
    """A gateway whose Safaricom is `safaricom`. It holds no token."""
    assert redis_url
    _by_hand[0].services.tokens._local.clear()
    return _by_hand[0]


@dataclass
class ApiProcess:
    """`mpesa-gateway api` as an operator starts it: gunicorn, and uvicorn with our protocol."""

    url: str
    simulator: RunningSimulator
    database_url: str

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as conn:
            return conn.execute(query.encode(), values).fetchall()


@pytest.fixture(scope="module")
def api_process(
    postgres: EmbeddedPostgres,
    redis_server: EmbeddedRedis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ApiProcess]:
    url, port = postgres.create_database("process", "template_gateway"), free_port()
    with (
        RunningSimulator(Settings(callback_delay=0.0)) as simulator,
        processes(
            tmp_path_factory.mktemp("process"),
            database_url=url,
            redis_url=redis_server.url(),
            base_url=simulator.url,
            callback_port=port,
            # Listed, as Safaricom is: its unmatched callbacks on the plain path are limited less.
            safaricom_ips="127.0.0.0/8",
        ) as started,
    ):
        started.api(port)
        yield ApiProcess(f"http://127.0.0.1:{port}", simulator, url)
    postgres.drop_database("process")

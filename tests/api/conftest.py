"""A gateway that many tests share, and a Postgres that a test may stop."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.gateway import Gateway, open_gateway
from harness.receiver import Receiver
from mpesa_gateway.demo.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, redis_server: EmbeddedRedis) -> Iterator[Gateway]:
    """One gateway for all tests of a file that keep out of each other's way: see `new_phone`."""
    url = postgres.create_database("shared", "template_gateway")
    settings = Settings(callback_delay=0.0)
    with (
        RunningSimulator(settings) as simulator,
        Receiver() as receiver,
        open_gateway(url, redis_server.url(), simulator, receiver) as gateway,
    ):
        yield gateway
    postgres.drop_database("shared")


@pytest.fixture(scope="session")
def new_phone() -> Callable[[str], str]:
    """A phone that no test used before, with these last four digits."""
    numbers = itertools.count(10_000)
    return lambda digits: f"254{next(numbers)}{digits}"


@pytest.fixture(scope="session")
def _own_postgres() -> Iterator[tuple[EmbeddedPostgres, str]]:
    with tempfile.TemporaryDirectory(prefix="mpesa-own-") as directory:
        server = EmbeddedPostgres(Path(directory), durable=False)
        server.start()
        try:
            url = server.create_database("own")
            apply_migrations(url, load_migrations(migrations_directory()), lambda _: None)
            yield server, url
        finally:
            server.stop()


@pytest.fixture
def own_postgres(_own_postgres: tuple[EmbeddedPostgres, str]) -> Iterator[EmbeddedPostgres]:
    """A Postgres that nobody else uses, to be stopped. It runs again for the next test."""
    server, _ = _own_postgres
    if not server.process.is_running():
        server.start()
    yield server
    if server.process.is_running():
        server.stop()


@pytest.fixture
def own_database_url(_own_postgres: tuple[EmbeddedPostgres, str]) -> str:
    """The migrated database of `own_postgres`. It keeps its rows from test to test."""
    return _own_postgres[1]

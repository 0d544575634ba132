"""Real Postgres and Redis for every test that asks; each test gets a database of its own."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness import (
    properties,  # noqa: F401 - loads Hypothesis' profile
    redises,
)
from harness.databases import Databases
from harness.gateway import Gateway, Gateways, open_gateway
from harness.given_stores import (
    DATABASE_VARIABLE,
    REDIS_VARIABLE,
    GivenPostgres,
    GivenRedis,
)
from harness.receiver import Receiver
from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_devkit.processes import free_port
from mpesa_gateway.clock import utc_now
from mpesa_gateway.domain.months import month_of
from mpesa_gateway.store import months
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import configure_logging
from mpesa_gateway.usecases.months import AHEAD

TEMPLATE = "template_gateway"
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def logging_as_in_production() -> None:
    """Through the same processors; pytest's own handler keeps what is logged."""
    configure_logging("json", "info")
    logging.getLogger().handlers.clear()


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mpesa-test-") as directory:
        yield Path(directory)


@pytest.fixture
def own_directory() -> Iterator[Path]:
    """For a test that stops its own Postgres; short, because of its socket's path."""
    with tempfile.TemporaryDirectory(prefix="mpesa-test-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[EmbeddedPostgres | GivenPostgres]:
    """A Postgres without fsync, or the one that is named, and a migrated database to copy."""
    named = os.environ.get(DATABASE_VARIABLE)
    server = GivenPostgres(named) if named else EmbeddedPostgres(server_directory, durable=False)
    server.start()
    try:
        url = server.create_database(TEMPLATE)
        apply_migrations(url, load_migrations(migrations_directory()), lambda _: None)
        _make_months(url)
        yield server
    finally:
        server.stop()


def _make_months(url: str) -> None:
    """The partitions that a worker would make: a database with others would not be used again."""
    pool = Pool(url, size=1, name="template")
    pool.open()
    try:
        with pool.connection("template.months") as conn:
            for month in month_of(utc_now()).next(1 + AHEAD):
                for table in months.TABLES:
                    months.create(conn, table, month)
                    months.attach(conn, table, month)
    finally:
        pool.close()


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
    """A Postgres that nobody else uses, to be stopped. It runs again for the next test.

    One that was left by its gateways comes back as one that has lost payments, and is held.
    """
    server, url = _own_postgres
    if not server.process.is_running():
        server.start()
    with psycopg.connect(url) as conn:
        conn.execute("TRUNCATE recovery_holds, lost_rows")
    yield server
    if server.process.is_running():
        server.stop()


@pytest.fixture
def own_database_url(_own_postgres: tuple[EmbeddedPostgres, str]) -> str:
    """The migrated database of `own_postgres`. It keeps its rows from test to test."""
    return _own_postgres[1]


@pytest.fixture(scope="session")
def redis_server(server_directory: Path) -> Iterator[EmbeddedRedis | GivenRedis]:
    named = os.environ.get(REDIS_VARIABLE)
    server = GivenRedis(named) if named else EmbeddedRedis(server_directory, redises.program())
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres | GivenPostgres) -> Databases:
    return Databases(postgres, TEMPLATE)


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A migrated database without a row."""
    name = databases.take()
    yield databases.url(name)
    databases.give_back(name)


@pytest.fixture
def empty_database_url(postgres: EmbeddedPostgres | GivenPostgres) -> Iterator[str]:
    """A fresh database without a schema."""
    name = f"empty_{next(_NUMBERS)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis | GivenRedis) -> str:
    """An empty Redis."""
    url = redis_server.url()
    with redis.Redis.from_url(url) as client:
        # A server that others share has a database for each process of the tests.
        client.flushdb() if isinstance(redis_server, GivenRedis) else client.flushall()
    return url


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    """A Safaricom of this test's own. Callbacks come at once."""
    with RunningSimulator(Settings(callback_delay=0.0, late_delay=0.2, hang_delay=0.5)) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def gateway(
    database_url: str, redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> Iterator[Gateway]:
    """A gateway in this process, driven step by step."""
    with open_gateway(database_url, redis_url, simulator, receiver) as running:
        yield running


@pytest.fixture(scope="session")
def gateways(databases: Databases, redis_server: EmbeddedRedis | GivenRedis) -> Gateways:
    return Gateways(databases, redis_server.url())


@pytest.fixture(scope="module")
def _kept(gateways: Gateways) -> Iterator[Gateway]:
    with gateways.start(port=free_port()) as gateway:
        yield gateway


@pytest.fixture
def kept_gateway(_kept: Gateway, databases: Databases, redis_url: str) -> Gateway:
    """One gateway for all tests of a file, that remembers nothing of the test before.

    For files with hundreds of tests: to start one costs 0.3 s of CPU, to empty one a third.
    """
    assert redis_url, "it is empty"
    with _kept.forgetting():
        databases.empty(_kept.database_url)
    return _kept

"""A Postgres that a test may stop, and helpers that need fixtures."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpesa_gateway.demo.embedded import EmbeddedPostgres
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)


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
            server.process.send(signal.SIGCONT)
            server.stop()


@pytest.fixture
def own_postgres(_own_postgres: tuple[EmbeddedPostgres, str]) -> Iterator[EmbeddedPostgres]:
    """A Postgres that nobody else uses, to be stopped. It runs again for the next test."""
    server, _ = _own_postgres
    if not server.process.is_running():
        server.start()
    yield server
    server.process.send(signal.SIGCONT)
    if server.process.is_running():
        server.stop()


@pytest.fixture
def own_database_url(_own_postgres: tuple[EmbeddedPostgres, str]) -> str:
    """The migrated database of `own_postgres`. It keeps its rows from test to test."""
    return _own_postgres[1]

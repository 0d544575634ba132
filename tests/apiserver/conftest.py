"""One API server for all of these tests; each test has namespaces and an operator of its own."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.apiserver import ApiServer, api_server, need_commands
from harness.merchantconfigs import BUNDLE, DARAJA, GATEWAY, RELEASE, FakePod, Operator, Shops

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    need_commands()
    with (
        tempfile.TemporaryDirectory(prefix="mpesa-api-") as directory,
        api_server(Path(directory)) as running,
    ):
        running.admin.namespace(GATEWAY)
        yield running


@pytest.fixture
def shops(server: ApiServer) -> Shops:
    """A namespace of merchants, with good credentials in the Secret `daraja`."""
    found = Shops(server.admin, server.admin.namespace(f"shops-{next(_NUMBERS)}"))
    found.add_secret()
    return found


@pytest.fixture(scope="session")
def daraja() -> Iterator[RunningSimulator]:
    """A Safaricom that knows the good credentials."""
    known = {DARAJA["consumerKey"]: DARAJA["consumerSecret"]}
    with RunningSimulator(Settings(credentials=known)) as running:
        yield running


@pytest.fixture
def pods(server: ApiServer) -> Iterator[dict[str, FakePod]]:
    """One API pod and one worker pod, on a cluster without a bundle."""
    started = {
        name: FakePod(server.admin, f"{name}-{next(_NUMBERS)}", name).start()
        for name in ("api", "worker")
    }
    try:
        yield started
    finally:
        for pod in started.values():
            pod.stop()
        path = f"/api/v1/namespaces/{GATEWAY}/secrets/{BUNDLE}"
        if server.admin.find(path) is not None:
            server.admin.delete(path)


Starter = Callable[..., Operator]


@pytest.fixture
def start_operator(
    server: ApiServer,
    daraja: RunningSimulator,
    tmp_path: Path,
    pods: dict[str, FakePod],  # noqa: ARG001 - there are pods before there is an operator
) -> Iterator[Starter]:
    """Starts an operator for some namespaces; ended with the test."""
    started: list[Operator] = []

    def start(
        *namespaces: str,
        secret_watch: bool = False,
        values: dict[str, Any] | None = None,
        release: str = RELEASE,
        **settings: str,
    ) -> Operator:
        directory = tmp_path / f"operator-{len(started)}"
        directory.mkdir()
        operator = Operator(
            server, directory, daraja.url, namespaces, secret_watch=secret_watch, settings=settings
        )
        operator.values = values or {}
        operator.release = release
        started.append(operator)
        operator.start()
        return operator

    yield start
    for operator in started:
        operator.stop()


@pytest.fixture
def operator(start_operator: Starter, shops: Shops) -> Operator:
    """An operator that watches the test's namespace."""
    return start_operator(shops.namespace)

"""Real processes, and what outside parties saw of their work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daraja_simulator.server import RunningSimulator
from harness.processes import Processes, processes
from harness.receiver import Receiver
from harness.witnesses import Witnesses
from mpesa_devkit.processes import free_port


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def gateway(
    tmp_path: Path,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    port: int,
) -> Iterator[Processes]:
    with processes(
        tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        base_url=simulator.url,
        callback_port=port,
    ) as made:
        yield made


@pytest.fixture
def witnesses(database_url: str, simulator: RunningSimulator, receiver: Receiver) -> Witnesses:
    return Witnesses(database_url, simulator, receiver)

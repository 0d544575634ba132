"""Real processes that share a small PgBouncer in transaction mode; a worker is killed meanwhile."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from daraja_simulator.server import RunningSimulator
from harness.pooler import PgBouncer
from harness.processes import processes
from harness.receiver import Receiver
from harness.waiting import wait_for
from harness.witnesses import Witnesses, pay_many
from mpesa_devkit.processes import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
PAYMENTS = 60


def has_received(receiver: Receiver, number: int) -> bool:
    return len(receiver.requests) >= number


def test_two_apis_and_two_workers_behind_a_pooler(
    tmp_path: Path,
    own_directory: Path,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    pooler = PgBouncer(own_directory, database_url, mode="transaction", size=4)
    witnesses = Witnesses(database_url, simulator, receiver)
    ports = [free_port(), free_port()]
    try:
        with processes(
            tmp_path,
            database_url=pooler.url,
            redis_url=redis_url,
            base_url=simulator.url,
            callback_port=ports[0],
        ) as gateway:
            for port in ports:
                gateway.api(port)
            first, _ = gateway.worker(), gateway.worker()
            pay_many(gateway, ports, receiver, PAYMENTS)
            wait_for(partial(has_received, receiver, 5), timeout_s=30)
            first.kill()
            wait_for(witnesses.all_told, timeout_s=60)
            assert "Traceback" not in gateway.logs()
    finally:
        pooler.stop()

    witnesses.check(payments=PAYMENTS, repeats_allowed=True)

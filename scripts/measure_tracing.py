#!/usr/bin/env python
"""Measures what tracing costs: CPU of API and worker for a payment, with it and without.

`.venv/bin/python scripts/measure_tracing.py 400` starts two whole gateways on one Postgres, one of
which sends every span to a receiver, and lets them make payments by turns. Needs Linux (/proc).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.otlp import Collector
from harness.processes import Processes, processes
from harness.receiver import Receiver
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_devkit.processes import free_port
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)

ROUND = 50
CLIENTS = 4
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Gateway:
    """One of the two, and the CPU that its payments took so far."""

    name: str
    number: int
    port: int
    url: str
    processes: Processes
    receiver: Receiver
    made: int = 0

    def pay(self, count: int) -> float:
        """CPU milliseconds of a payment, from `/initiate` to its webhook's end."""
        before = self._cpu_s()
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(self._pay_one, range(self.made, self.made + count)))
        self.made += count
        if set(answers) != {201}:
            raise RuntimeError(f"{self.name}: {set(answers)}")
        wait_for(self._all_told, timeout_s=60, what="the webhooks")
        return (self._cpu_s() - before) / count * 1000

    def _pay_one(self, number: int) -> int:
        return self.processes.initiate(
            self.port,
            amount="10",
            phone=f"2547{self.number}{number:07d}",
            webhook_url=self.receiver.url,
            idempotency_key=str(uuid.uuid4()),
        ).status_code

    def _all_told(self) -> bool:
        with psycopg.connect(self.url) as conn:
            found = conn.execute("SELECT count(*) FROM deliveries WHERE state = 'DELIVERED'")
            return found.fetchone() == (self.made,)

    def _cpu_s(self) -> float:
        """Of all its processes; gunicorn's child does the API's work."""
        return sum(_cpu_s(pid) for it in self.processes.running for pid in _family(it.pid))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _family(int(child))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


@contextmanager
def two_gateways(directory: Path) -> Iterator[list[Gateway]]:
    """Without and with traces; everything else is shared, or alike."""
    with ExitStack() as opened:
        postgres, redis = EmbeddedPostgres(directory), EmbeddedRedis(directory)
        for store in (postgres, redis):
            store.start()
            opened.callback(store.stop)
        simulator = opened.enter_context(RunningSimulator(Settings(callback_delay=0.0)))
        collector = opened.enter_context(Collector())
        receiver = opened.enter_context(Receiver())
        gateways = []
        for number, settings in enumerate(({}, {"otlp_endpoint": collector.url})):
            url = postgres.create_database(f"gateway_{number}")
            apply_migrations(url, load_migrations(migrations_directory()), lambda _: None)
            port = free_port()
            made = opened.enter_context(
                processes(
                    directory,
                    database_url=url,
                    redis_url=redis.url(number),
                    base_url=simulator.url,
                    callback_port=port,
                    safaricom_consumer_key=f"consumer-key-{number}",
                    sweep_interval="5s",
                    **settings,
                )
            )
            made.api(port)
            made.worker()
            name = "with traces" if settings else "without"
            gateways.append(Gateway(name, number, port, url, made, receiver))
        yield gateways
        if not collector.spans:
            raise RuntimeError("no span arrived")


def main() -> None:
    """Pay by turns, and compare turn by turn."""
    rounds = max(int(sys.argv[1]) if len(sys.argv) > 1 else 400, 2 * ROUND) // ROUND
    with (
        tempfile.TemporaryDirectory(prefix="mpesa-test-") as directory,
        two_gateways(Path(directory)) as gateways,
    ):
        for gateway in gateways:
            gateway.pay(ROUND)
        turns = [[gateway.pay(ROUND) for gateway in gateways] for _ in range(rounds)]
    for gateway, costs in zip(gateways, zip(*turns, strict=True), strict=True):
        print(f"{gateway.name}: {statistics.median(costs):.1f} ms of CPU for a payment")
    ratios = [with_ / without for without, with_ in turns]
    print(
        f"ratio: {statistics.median(ratios):.2f} (of {rounds} rounds of {ROUND} payments:"
        f" {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()

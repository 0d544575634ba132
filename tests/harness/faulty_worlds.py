"""Gateways that are broken on purpose, side by side, each in a namespace of one Prometheus."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.alerts import Case
from harness.payment_alerts import PAYMENT_CASES
from harness.platform_alerts import PLATFORM_CASES
from harness.processes import Processes, processes
from harness.prometheus import Prometheus
from harness.receiver import Receiver
from harness.scaled_rules import write_scaled_rules
from harness.settings import API_KEY
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_devkit.processes import Process, free_port
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)

CASES: tuple[Case, ...] = PAYMENT_CASES + PLATFORM_CASES
PAYERS = 3
PAUSE_S = 0.8
# A phase waits for its alerts at most this long. A callback that Postgres does not take costs 2 s.
PHASE_S = 75.0
REQUEST_S = 10.0
# More than one, because an endpoint that failed ten times is left alone.
CLOSED_ENDPOINTS = 4
PAID, CANCELLED, SILENT = "0000", "1032", "4042"
BUSY, WRONG_AMOUNT, CONTRADICTED = "5002", "7001", "7002"

# An alert and one of its severities.
Ringing = tuple[str, str]


def ringing_of(*faults: str) -> frozenset[Ringing]:
    """What docs/alerts.md says that these faults ring."""
    found = frozenset(
        (case.alert, severity) for case in CASES if case.fault in faults for severity in case.rings
    )
    assert {case.fault for case in CASES} >= set(faults), faults
    return found


@dataclass
class World:
    """One gateway and those who pay through it. What they do is changed while they do it."""

    name: str
    number: int
    port: int
    api: Process
    worker: Process
    redis: EmbeddedRedis
    postgres: EmbeddedPostgres
    digits: tuple[str, ...]
    webhook_urls: tuple[str, ...]
    calls_back: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def pay_on(self) -> None:
        """Until told to stop, whatever comes of it."""
        while not self.stopping.wait(PAUSE_S):
            number = next(self.numbers)
            if self.calls_back:
                self._post("/callback", {})
            body = {
                "amount": "10",
                "phone": f"2547{self.number}{number % 1000:03d}"
                + self.digits[number % len(self.digits)],
                "webhook_url": self.webhook_urls[number % len(self.webhook_urls)],
                "idempotency_key": str(uuid.uuid4()),
            }
            self._post("/initiate", body)

    def _post(self, path: str, body: dict[str, str]) -> None:
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"X-Internal-Secret": API_KEY}
        with contextlib.suppress(requests.RequestException):
            requests.post(url, json=body, headers=headers, timeout=REQUEST_S)


@dataclass(frozen=True)
class Phase:
    """Rows of docs/alerts.md, and how they are brought about."""

    faults: tuple[str, ...]
    break_it: Callable[[World], None]


def _pays(*digits: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.digits = digits

    return change


def _closes_the_receiver(world: World) -> None:
    world.webhook_urls = tuple(
        f"http://127.0.0.1:{free_port()}/hook" for _ in range(CLOSED_ENDPOINTS)
    )


def _stops_postgres(world: World) -> None:
    world.calls_back = True
    world.postgres.stop()


HEALTHY = "healthy"
# By world, in this order.
PHASES: dict[str, tuple[Phase, ...]] = {
    HEALTHY: (),
    "safaricom": (
        Phase(("no callback",), _pays(SILENT)),
        Phase(("busy",), _pays(BUSY)),
        Phase(("every API pod killed",), lambda it: _end(it.api)),
    ),
    "merchant": (
        Phase(
            (
                "receiver down",
                "receiver down for longer than the retry schedule",
                "receiver down, ten failures in a row",
            ),
            _closes_the_receiver,
        ),
        Phase(("wrong amount in the callback",), _pays(PAID, WRONG_AMOUNT)),
        Phase(("query contradicts callback",), _pays(PAID, CONTRADICTED)),
        Phase(("every worker killed",), lambda it: _end(it.worker)),
    ),
    "platform": (
        Phase(("Redis stopped",), lambda it: it.redis.stop()),
        Phase(("Postgres stopped",), _stops_postgres),
    ),
}
SETTINGS = {
    "sweep_interval": "1s",
    "webhook_retry_schedule": "1s",
    "query_schedule": "1s,1s,30s",
    "prompt_life": "1s",
}


def _end(process: Process) -> None:
    """As a pod ends, with all of its processes; gunicorn's child outlives a kill of its parent."""
    process.stop()


@dataclass(frozen=True)
class Seen:
    """What rang before a phase, and after how many seconds all of its alerts did."""

    before: frozenset[Ringing]
    rang: frozenset[Ringing]
    after_s: float


@dataclass(frozen=True)
class Run:
    """All phases of all worlds, and everything that ever rang."""

    seen: dict[tuple[str, ...], Seen]
    ever: dict[str, frozenset[Ringing]]
    scraped: frozenset[str]


def _firing(prometheus: Prometheus, world: str) -> frozenset[Ringing]:
    return frozenset(_ringing(it) for it in prometheus.alerts() if it["namespace"] == world)


def _ringing(labels: Mapping[str, str]) -> Ringing:
    return labels["alertname"], labels["severity"]


def _go_through(world: World, prometheus: Prometheus) -> dict[tuple[str, ...], Seen]:
    """Break one thing after the other; each time wait for what it should ring."""
    found = {}
    for phase in PHASES[world.name]:
        wanted = ringing_of(*phase.faults)
        before, started = _firing(prometheus, world.name), time.monotonic()
        phase.break_it(world)
        # The test says what did not ring.
        with contextlib.suppress(AssertionError):
            wait_for(lambda: wanted <= _firing(prometheus, world.name), timeout_s=PHASE_S)  # noqa: B023 - in this round
        rang = _firing(prometheus, world.name)
        found[phase.faults] = Seen(before, rang, time.monotonic() - started)
    return found


def run_all(directory: Path) -> Run:
    """Everything at once; a minute and a half on two cores."""
    with opened(directory) as (worlds, prometheus):
        start = time.time()
        found: dict[tuple[str, ...], Seen] = {}
        threads = [
            threading.Thread(target=lambda it=it: found.update(_go_through(it, prometheus)))
            for it in worlds
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        series = prometheus.query_range('ALERTS{alertstate="firing"}', start, time.time(), 1)
        rang = {(it.labels["namespace"], _ringing(it.labels)) for it in series}
        # What rings this very second has no sample yet.
        rang |= {(it["namespace"], _ringing(it)) for it in prometheus.alerts()}
        ever = {
            world.name: frozenset(what for where, what in rang if where == world.name)
            for world in worlds
        }
        scraped = {it.labels["namespace"] for it in prometheus.query("up == 1")}
        return Run(found, ever, frozenset(scraped))


@contextmanager
def opened(directory: Path) -> Iterator[tuple[list[World], Prometheus]]:
    """Every world with its payers, and the Prometheus that watches them by the chart's rules."""
    with ExitStack() as stack:
        simulator = stack.enter_context(
            RunningSimulator(Settings(callback_delay=0.2, late_delay=6.0))
        )
        receiver = stack.enter_context(Receiver())
        shared, own = (_postgres(stack, directory / it) for it in ("shared", "own"))
        worlds, targets = [], {}
        for number, name in enumerate(PHASES):
            postgres = own if name == "platform" else shared
            redis = _redis(stack, directory / name)
            world, ports = _world(
                stack, directory / name, name, number, (postgres, redis), simulator, receiver
            )
            worlds.append(world)
            targets[name] = ports
        prometheus = stack.enter_context(
            Prometheus(
                directory / "prometheus",
                targets,
                rules=[write_scaled_rules(directory / "rules.yaml")],
                labels={name: {"namespace": name} for name in targets},
            )
        )
        prometheus.wait_until_scraped()
        for world in worlds:
            stack.enter_context(_paying(world))
        yield worlds, prometheus


def _postgres(stack: ExitStack, directory: Path) -> EmbeddedPostgres:
    directory.mkdir()
    # Root's Postgres runs as somebody else, who must come this far.
    directory.parent.chmod(0o755)
    server = EmbeddedPostgres(directory, durable=False)
    server.start()
    stack.callback(server.stop)
    return server


def _redis(stack: ExitStack, directory: Path) -> EmbeddedRedis:
    directory.mkdir()
    server = EmbeddedRedis(directory)
    server.start()
    stack.callback(server.stop)
    return server


def _world(
    stack: ExitStack,
    directory: Path,
    name: str,
    number: int,
    stores: tuple[EmbeddedPostgres, EmbeddedRedis],
    simulator: RunningSimulator,
    receiver: Receiver,
) -> tuple[World, list[str]]:
    postgres, redis = stores
    url = postgres.create_database(name)
    apply_migrations(url, load_migrations(migrations_directory()), lambda _: None)
    port, metrics_ports = free_port(), [free_port(), free_port()]
    gateway: Processes = stack.enter_context(
        processes(
            directory,
            database_url=url,
            redis_url=redis.url(),
            base_url=simulator.url,
            callback_port=port,
            # An app of its own: each new token ends the one before.
            safaricom_consumer_key=f"consumer-key-of-{name}",
            **SETTINGS,
        )
    )
    api = gateway.api(port, metrics_port=str(metrics_ports[0]))
    worker = gateway.worker(metrics_port=str(metrics_ports[1]))
    world = World(
        name, number, port, api, worker, redis, postgres, (PAID, CANCELLED), (receiver.url,)
    )
    return world, [f"127.0.0.1:{it}" for it in metrics_ports]


@contextmanager
def _paying(world: World) -> Iterator[None]:
    threads = [threading.Thread(target=world.pay_on) for _ in range(PAYERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        world.stopping.set()
        for thread in threads:
            thread.join()

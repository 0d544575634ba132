"""Whole payments: initiate, push, callback, applied, webhook; ours, a Go peer and a FastAPI peer.

Safaricom answers a push after 50 ms and calls back 100 ms later (bench/peers/go/safaricom.go); the
endpoint answers a webhook after 1 ms. All of it shares this machine's cores.
"""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.data import initiate
from bench.endpoint import Endpoint
from bench.figures import Figure, Plan, at_least, at_most
from bench.footprint import cpu_s
from bench.load import Request, Sample, closed, quantile
from bench.rig import Rig, Running

CLIENTS = 64
UPSTREAM_S = 0.05
# Until the webhooks of what was accepted have arrived.
DRAIN_S = 120.0
ENDPOINTS = 10
TABLES = """
    CREATE TABLE IF NOT EXISTS peer_payments (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        merchant TEXT NOT NULL,
        idempotency_key UUID NOT NULL,
        phone TEXT NOT NULL,
        amount BIGINT NOT NULL,
        webhook_url TEXT NOT NULL,
        push_state TEXT NOT NULL,
        status TEXT NOT NULL,
        checkout_request_id TEXT UNIQUE,
        receipt TEXT UNIQUE,
        created_at TIMESTAMPTZ NOT NULL,
        finished_at TIMESTAMPTZ,
        UNIQUE (merchant, idempotency_key)
    );
    CREATE TABLE IF NOT EXISTS peer_inbox (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        payment_id BIGINT NOT NULL REFERENCES peer_payments,
        body BYTEA NOT NULL,
        received_at TIMESTAMPTZ NOT NULL,
        applied_at TIMESTAMPTZ
    );
    CREATE TABLE IF NOT EXISTS peer_deliveries (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        payment_id BIGINT NOT NULL UNIQUE REFERENCES peer_payments,
        url TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0
    );
"""
_NUMBERS = itertools.count(0)


@dataclass(frozen=True)
class Contender:
    """Something that takes payments: where, and which processes its work is done by."""

    port: int
    running: list[Running]


@dataclass(frozen=True)
class Run:
    """What one run of one contender came to."""

    sample: Sample
    per_second: float
    # CPU time of a payment, in ms: the service's processes, and Postgres.
    service_ms: float
    postgres_ms: float
    commits: float
    # Of callbacks, in ms.
    ack_p50_ms: float
    ack_p99_ms: float
    lost: int


def initiates(urls: list[str]) -> Iterator[Request]:
    """Payments of phones that nobody used before."""
    for number in _NUMBERS:
        phone = f"2547{number % 100_000_000:08d}"
        yield number, initiate(phone, urls[number % len(urls)])


def measure(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """All three by turns, with 64 clients. Raises MissingToolError without Go."""
    with rig.connect() as conn:
        conn.execute(TABLES.encode())
    safaricom = rig.safaricom()
    url = f"http://127.0.0.1:{safaricom.port}"
    runs: dict[str, list[Run]] = defaultdict(list)
    with Endpoint() as endpoint:
        for _ in range(1 if plan.short else 3):
            for name, start in _contenders(rig, url).items():
                found = _run(rig, start(), safaricom, endpoint, plan)
                runs[name].append(found)
                if found.sample.errors or found.lost:
                    answers = dict(found.sample.statuses)
                    notes.append(f"{name}: answers {answers}, {found.lost} webhooks missing")
    rig.end(safaricom)
    return _figures(runs)


def _contenders(rig: Rig, safaricom: str) -> dict[str, Callable[[], Contender]]:
    def ours() -> Contender:
        settings = {
            "safaricom_base_url": safaricom,
            "prompts_per_phone_per_hour": "0",
        }
        api = rig.api(None, **settings)
        return Contender(api.port, [api, rig.worker(**settings)])

    def peer(name: str) -> Callable[[], Contender]:
        def start() -> Contender:
            running = rig.payment_peer(name, safaricom)
            return Contender(running.port, [running])

        return start

    return {"ours": ours, "Go": peer("go"), "FastAPI": peer("fastapi_payments")}


def _run(rig: Rig, contender: Contender, safaricom: Running, endpoint: Endpoint, plan: Plan) -> Run:
    seconds = 2.0 if plan.short else 8.0
    requests = initiates(endpoint.urls(ENDPOINTS))
    # Connections, plans and a token are made before anything is measured.
    warm = closed(contender.port, requests, connections=CLIENTS, seconds=1.0)
    _wait_for_webhooks(endpoint, len(warm.latencies))
    _take_answers(safaricom)
    endpoint.arrived_at.clear()
    before, commits, started = _cpu(rig, contender), _commits(rig), time.perf_counter()
    sample = closed(contender.port, requests, connections=CLIENTS, seconds=seconds)
    lost = _wait_for_webhooks(endpoint, len(sample.latencies))
    made = max(1, len(sample.latencies))
    took = max(endpoint.arrived_at.values(), default=time.perf_counter()) - started
    after = _cpu(rig, contender)
    service, postgres = (1000 * (b - a) / made for a, b in zip(before, after, strict=True))
    answers = _take_answers(safaricom)
    for it in contender.running:
        rig.end(it)
    return Run(
        sample,
        per_second=len(endpoint.arrived_at) / took,
        service_ms=service,
        postgres_ms=postgres,
        commits=(_commits(rig) - commits) / made,
        ack_p50_ms=1000 * answers["p50_s"],
        ack_p99_ms=1000 * answers["p99_s"],
        lost=lost,
    )


def _wait_for_webhooks(endpoint: Endpoint, count: int) -> int:
    """How many of them are missing when none comes any more."""
    give_up = time.monotonic() + DRAIN_S
    while len(endpoint.arrived_at) < count and time.monotonic() < give_up:
        time.sleep(0.02)
    return max(0, count - len(endpoint.arrived_at))


def _cpu(rig: Rig, contender: Contender) -> tuple[float, float]:
    service = sum(cpu_s(it.process.pid) for it in contender.running)
    return service, cpu_s(rig.postgres.process.pid)


def _commits(rig: Rig) -> int:
    with rig.connect() as conn:
        conn.execute("SELECT pg_stat_clear_snapshot()")
        row = conn.execute(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    commits: int = row[0]
    return commits


def _take_answers(safaricom: Running) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{safaricom.port}/answers", timeout=10) as answer:
        found: dict[str, float] = json.load(answer)
        return found


def _figures(runs: dict[str, list[Run]]) -> list[Figure]:
    def values(name: str, value: Callable[[Run], float]) -> list[float]:
        return [value(it) for it in runs[name]]

    def ratios(other: str, value: Callable[[Run], float]) -> list[float]:
        pairs = zip(runs["ours"], runs[other], strict=True)
        return [value(ours) / value(peer) for ours, peer in pairs]

    def cpu(run: Run) -> float:
        return run.service_ms + run.postgres_ms

    def beyond_upstream(run: Run) -> float:
        return 1000 * (quantile(run.sample.latencies, 0.5) - UPSTREAM_S)

    each = f"{CLIENTS} clients"
    lost = [float(it.lost + it.sample.errors) for of in runs.values() for it in of]
    figures = [
        Figure("payments: webhooks missing, or initiates not answered 201", lost, at_most(0)),
        Figure(
            f"payments/s, {each} ÷ Go", ratios("Go", lambda it: it.per_second), at_least(0.5, 1)
        ),
        Figure("payments/s ÷ FastAPI", ratios("FastAPI", lambda it: it.per_second), at_least(2, 4)),
        Figure("CPU of a payment, with Postgres ÷ Go", ratios("Go", cpu), at_most(2, 1)),
        Figure(
            "initiate p50, less upstream", values("ours", beyond_upstream), at_most(60, 30), "ms"
        ),
        Figure(
            "callback ack p99 beside initiates",
            values("ours", lambda it: it.ack_p99_ms),
            at_most(50, 25),
            "ms",
        ),
    ]
    for name in runs:
        figures += [
            Figure(f"{name}: payments/s", values(name, lambda it: it.per_second), unit="1/s"),
            Figure(f"{name}: CPU, service", values(name, lambda it: it.service_ms), unit="ms"),
            Figure(f"{name}: CPU, Postgres", values(name, lambda it: it.postgres_ms), unit="ms"),
            Figure(f"{name}: commits of a payment", values(name, lambda it: it.commits)),
            Figure(
                f"{name}: initiate p50, less upstream", values(name, beyond_upstream), unit="ms"
            ),
            Figure(f"{name}: callback ack p50", values(name, lambda it: it.ack_p50_ms), unit="ms"),
        ]
    return figures

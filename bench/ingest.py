"""Callbacks: how many a second become durable, and how long one waits for its 200."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg

from bench import data, pgbench
from bench.figures import Figure, Plan, at_least, at_most
from bench.footprint import cpu_s
from bench.load import Request, Sample, closed, quantile
from bench.rig import PEER_TABLE, MissingToolError, Rig, Running

CONNECTIONS = 64
GATEWAY = "gateway"
# What each is, by its module in bench/peers.
PEERS = {"fastapi_app": "FastAPI + asyncpg", "falcon_gthread": "Falcon, gthread", "go": "Go + pgx"}
# More payments than a sample can use up, from what the limit was just before.
_SPARE = 1.5


@dataclass
class Contest:
    """One rig: who takes part, and what each reached in each round."""

    rig: Rig
    conn: psycopg.Connection
    servers: dict[str, Running]
    payments: data.Payments
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(0, 1_000_000))
    limits: list[float] = field(default_factory=list)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    # Of the rounds at 64 connections only: with fewer, each callback pays for more wake-ups.
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    p99_s: list[float] = field(default_factory=list)
    missing: int = 0
    errors: int = 0

    def sample(self, name: str, connections: int, seconds: float, limit: float) -> Sample:
        """One run against one server, with its 200s counted in the table afterwards."""
        requests: Iterator[Request]
        if name == GATEWAY:
            count = int(limit * seconds * _SPARE) + 100 * connections
            requests = data.callbacks(self.payments.take(count))
        else:
            requests = data.peer_callbacks(next(self.numbers))
        server = self.servers[name]
        before = cpu_s(server.process.pid)
        sample = closed(server.port, requests, connections=connections, seconds=seconds)
        used = cpu_s(server.process.pid) - before
        if connections == CONNECTIONS:
            self.cpu_ms.setdefault(name, []).append(1000 * used / max(1, len(sample.kept)))
        table = "callbacks" if name == GATEWAY else PEER_TABLE
        self.missing += data.count_missing(self.conn, table, sample.kept)
        self.errors += sample.errors
        return sample

    def run_round(self, plan: Plan, number: int) -> None:
        """Everybody once, each between two samples of the limit; every other round backwards."""
        names = list(self.servers)
        before = pgbench.commits_per_second(self.rig, plan.seconds)
        for name in names if number % 2 == 0 else names[::-1]:
            sample = self.sample(name, CONNECTIONS, plan.seconds, before)
            after = pgbench.commits_per_second(self.rig, plan.seconds)
            limit = (before + after) / 2
            self.limits.append(limit)
            self.ratios.setdefault(name, []).append(sample.per_second / limit)
            if name == GATEWAY:
                self.p99_s.append(quantile(sample.latencies, 0.99))
            before = after


def _contest(rig: Rig, conn: psycopg.Connection, peers: list[str], notes: list[str]) -> Contest:
    pgbench.prepare(rig)
    servers = {GATEWAY: rig.api()}
    for peer in peers:
        try:
            servers[peer] = rig.peer(peer)
        except MissingToolError as error:
            notes.append(f"left out {PEERS[peer]}: there is no {error}")
    return Contest(rig, conn, servers, data.Payments(conn))


def measure(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """On this machine's own disk, against pgbench and the peers; then one connection alone."""
    with rig.connect() as conn:
        contest = _contest(rig, conn, list(PEERS), notes)
        for number in range(plan.rounds):
            contest.run_round(plan, number)
        acks, ack_ratios = _one_connection(contest, plan)
    ours = contest.ratios[GATEWAY]
    figures = [Figure("callbacks/s, 64 connections ÷ pgbench", ours, at_least(0.5, 1.0))]
    for peer, title in PEERS.items():
        if peer in contest.ratios:
            pairs = zip(ours, contest.ratios[peer], strict=True)
            goal = None if peer == "go" else at_least(2, 4)
            name = f"callbacks/s ÷ {title}"
            figures.append(Figure(name, [mine / theirs for mine, theirs in pairs], goal))
    figures += [
        Figure("ack p50, 1 connection ÷ pgbench's commit, 1 client", ack_ratios, at_most(4, 2)),
        Figure("pgbench, 32 clients", contest.limits, unit="rows/s"),
        Figure("ack p50, 1 connection", [1000 * it for it in acks], unit="ms"),
        Figure("ack p99, 64 connections", [1000 * it for it in contest.p99_s], unit="ms"),
        *_cpu_figures(contest.cpu_ms),
        Figure("rows missing of those answered 200", [float(contest.missing)], at_most(0)),
    ]
    if contest.errors:
        notes.append(f"{contest.errors} callbacks were not answered 200 in the contest")
    return figures


def _cpu_figures(cpu_ms: dict[str, list[float]]) -> list[Figure]:
    """User and system time of each server's processes, and ours as a share of each peer's."""
    load = f"CPU per callback, {CONNECTIONS} connections"
    shares = [
        Figure(
            f"{load}: gateway ÷ {PEERS[name]}",
            [ours / theirs for ours, theirs in zip(cpu_ms[GATEWAY], values, strict=True)],
        )
        for name, values in cpu_ms.items()
        if name != GATEWAY
    ]
    return shares + [
        Figure(f"{load}: {PEERS.get(name, name)}", values, unit="ms")
        for name, values in cpu_ms.items()
    ]


def _one_connection(contest: Contest, plan: Plan) -> tuple[list[float], list[float]]:
    acks, ratios = [], []
    for _ in range(plan.rounds):
        commit = pgbench.commit_latency(contest.rig, plan.seconds)
        sample = contest.sample(GATEWAY, 1, plan.seconds, 1 / commit)
        acks.append(quantile(sample.latencies, 0.5))
        ratios.append(acks[-1] / commit)
    return acks, ratios


def measure_slow_disk(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """The same on a disk whose commits take 2 ms longer."""
    with rig.connect() as conn:
        contest = _contest(rig, conn, ["fastapi_app"], notes)
        for number in range(plan.rounds):
            contest.run_round(plan, number)
    return [
        Figure(
            "2 ms disk: callbacks/s, 64 connections ÷ pgbench",
            contest.ratios[GATEWAY],
            at_least(0.75, 1.0),
        ),
        Figure("2 ms disk: FastAPI + asyncpg ÷ pgbench", contest.ratios["fastapi_app"]),
        Figure("2 ms disk: pgbench, 32 clients", contest.limits, unit="rows/s"),
        Figure("2 ms disk: rows missing", [float(contest.missing)], at_most(0)),
    ]

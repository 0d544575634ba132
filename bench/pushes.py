"""Pushes held in flight by one API process while Safaricom takes two seconds to answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from bench.data import initiate
from bench.figures import Figure, Plan, at_least
from bench.footprint import cpu_s
from bench.load import Request, closed, quantile
from bench.rig import Rig

UPSTREAM_S = 2.0
# The simulator's outcome for a phone that ends so: no callback.
SILENT = "4042"
_PHONES = itertools.count(0)


def initiates() -> Iterator[Request]:
    """Payments of phones that nobody used, 10,000 at most; no callback comes."""
    while True:
        number = next(_PHONES)
        phone = f"2547{number % 10_000:04d}{SILENT}"
        yield number, initiate(phone, "http://127.0.0.1:8080/webhooks")


def measure(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """At 128, the default limit of a process, and at 256."""
    figures = []
    simulator = rig.simulator(push_delay=f"{UPSTREAM_S}s", callback_delay="3600s")
    url = f"http://127.0.0.1:{simulator.port}"
    for most in (128, 256):
        api = rig.api(safaricom_base_url=url, pushes_in_flight=str(most))
        held, shares, cpu = [], [], []
        for _ in range(1 if plan.short else 3):
            seconds = 2 * UPSTREAM_S + 1.5
            before = cpu_s(api.process.pid)
            sample = closed(api.port, initiates(), connections=most, seconds=seconds)
            good = len(sample.latencies)
            cpu.append(1000 * (cpu_s(api.process.pid) - before) / max(1, good))
            if sample.errors:
                notes.append(f"{most} in flight: answers {dict(sample.statuses)}")
            # Each connection has one in flight all the time; it counts when all are answered 201.
            waited = quantile(sample.latencies, 0.5) if good else 0.0
            held.append(float(most if not sample.errors else 0))
            shares.append(UPSTREAM_S / waited if waited else 0.0)
        rig.end(api)
        name = f"pushes in flight at {UPSTREAM_S:g} s upstream, {most} connections"
        goal = at_least(128) if most == 128 else at_least(256)
        figures += [
            Figure(f"{name}: held without error", held, goal),
            Figure(f"{name}: upstream's time ÷ median answer", shares),
            Figure(f"{name}: CPU per initiate", cpu, unit="ms"),
        ]
    rig.end(simulator)
    return figures

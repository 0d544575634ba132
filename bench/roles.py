"""What each role needs: time to start, and memory after work."""

from __future__ import annotations

from bench import data
from bench.figures import Figure, Plan, at_most
from bench.footprint import memory_mib
from bench.load import closed
from bench.rig import Rig


def measure(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """An API and a worker that took and applied some thousands of callbacks, and a simulator."""
    del notes
    start_s: dict[str, list[float]] = {"api": [], "worker": [], "simulator": []}
    pss: dict[str, list[float]] = {"api": [], "worker": [], "simulator": []}
    rss: dict[str, list[float]] = {"api": [], "worker": [], "simulator": []}
    for number in range(1 if plan.short else 3):
        running = {"api": rig.api(), "worker": rig.worker(), "simulator": rig.simulator()}
        with rig.connect() as conn:
            payments = data.Payments(conn, made=70_000_000 + 100_000 * number)
            requests = data.callbacks(payments.take(500 if plan.short else 3000))
            closed(running["api"].port, requests, connections=64, seconds=10)
        for role, each in running.items():
            start_s[role].append(each.start_s)
            memory = memory_mib(each.process.pid)
            pss[role].append(memory[0])
            rss[role].append(memory[1])
            rig.end(each)
    goals = {"api": at_most(120, 80), "worker": at_most(120, 80)}
    return [
        *(Figure(f"memory (PSS), {it}", pss[it], goals.get(it), "MiB") for it in pss),
        *(Figure(f"memory (RSS summed), {it}", rss[it], unit="MiB") for it in rss),
        *(Figure(f"start-up until ready, {it}", start_s[it], unit="s") for it in start_s),
    ]

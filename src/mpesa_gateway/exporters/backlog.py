"""Exports the ages of the oldest waiting work: one elected worker, and nothing when it cannot know.

A histogram sees only work that ended; these see what is stuck. A value that is not fresh is not
exported, so that a dead Postgres shows as absence and not as a frozen number.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mpesa_gateway.store import backlog, months
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry import metrics

TERM = timedelta(seconds=15)
FRESH_S = 20.0


class BacklogExporter(Collector):
    """A Prometheus collector that a worker's sweeper refreshes."""

    def __init__(self, pool: Pool, clock: Callable[[], datetime]) -> None:
        self._pool = pool
        self._clock = clock
        self._holder = f"{socket.gethostname()} {uuid.uuid4()}"
        self._values: dict[str, float] = {}
        self._measured_at = float("-inf")

    def refresh(self) -> None:
        """Measure, if this process holds the duty or can take it. Raises UnavailableError."""
        now = self._clock()
        with self._pool.connection("ages.measure") as conn:
            if not backlog.elect(conn, "ages", self._holder, until=now + TERM, now=now):
                self._values = {}
                return
            ready = months.count_ready(conn, now)
            self._values = {**backlog.measure(conn, now), "mpesa_partition_months": float(ready)}
        self._measured_at = time.monotonic()

    def collect(self) -> Iterable[Metric]:
        """The values, while they are fresh."""
        if time.monotonic() - self._measured_at > FRESH_S:
            return
        for name, value in self._values.items():
            yield GaugeMetricFamily(name, metrics.AGES[name], value=value)

    def describe(self) -> Iterable[Metric]:
        """The names, so that registering needs no database."""
        return [GaugeMetricFamily(name, text) for name, text in metrics.AGES.items()]

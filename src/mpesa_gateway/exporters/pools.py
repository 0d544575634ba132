"""Exports how busy the pools of connections are, when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry import metrics


class PoolExporter(Collector):
    """A Prometheus collector over the pools of one process."""

    def __init__(self, *pools: Pool) -> None:
        self._pools = pools

    def collect(self) -> Iterable[Metric]:
        """A series for each pool."""
        usages = {pool.name: asdict(pool.usage()) for pool in self._pools}
        for name, text in metrics.POOLS.items():
            family = GaugeMetricFamily(name, text, labels=["pool"])
            for pool, usage in usages.items():
                family.add_metric([pool], usage[name.removeprefix("mpesa_db_pool_")])
            yield family

    def describe(self) -> Iterable[Metric]:
        """The names, so that registering asks no pool."""
        return [GaugeMetricFamily(name, text) for name, text in metrics.POOLS.items()]

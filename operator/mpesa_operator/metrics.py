"""The operator's metrics. No label names a merchant."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

from mpesa_operator.conditions import READY, SUSPENDED

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

reconcile_seconds = Histogram(
    "mpesa_operator_reconcile_seconds",
    "Time to look at one MerchantConfig and act.",
    ["outcome"],
    buckets=_SECONDS,
)
propagation_seconds = Histogram(
    "mpesa_operator_propagation_seconds",
    "Time from a written merchant file until every ready pod has loaded it.",
    buckets=_SECONDS,
)
bundle_bytes = Gauge(
    "mpesa_operator_bundle_bytes", "Bytes of merchant files in a bundle Secret.", ["shard"]
)
bundle_limit_bytes = Gauge(
    "mpesa_operator_bundle_limit_bytes", "Bytes of merchant files that a bundle Secret may hold."
)
bundle_entries = Gauge(
    "mpesa_operator_bundle_entries", "Merchant files in a bundle Secret.", ["shard"]
)
token_checks = Counter(
    "mpesa_operator_token_checks_total", "Credentials that Daraja was asked about.", ["outcome"]
)
last_sweep = Gauge(
    "mpesa_operator_last_sweep_timestamp_seconds", "When all MerchantConfigs were last listed."
)
heartbeat = Gauge(
    "mpesa_operator_heartbeat_timestamp_seconds", "When the operator's loop last came round."
)
orphaned_merchants = Gauge(
    "mpesa_operator_orphaned_merchants",
    "Published merchants whose MerchantConfig vanished without a drain, and that drain now.",
)
invalid_objects = Gauge(
    "mpesa_operator_invalid_objects", "MerchantConfigs whose spec this operator cannot read."
)

# Condition type to status.
Conditions = Mapping[str, str]


def countable(status: Mapping[str, Any]) -> dict[str, str]:
    """The conditions of a MerchantConfig's status, as they are counted.

    A merchant that is suspended on purpose is ready and takes no payments: it has a status of
    its own.
    """
    return {
        item["type"]: SUSPENDED
        if (item["type"], item.get("reason")) == (READY, SUSPENDED)
        else item["status"]
        for item in status.get("conditions") or []
    }


class MerchantsCollector(Collector):
    """`mpesa_operator_merchants`, counted when it is asked for."""

    def __init__(self, look: Callable[[], Iterable[Conditions]]) -> None:
        self._look = look

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """How many MerchantConfigs have each condition in each status."""
        family = GaugeMetricFamily(
            "mpesa_operator_merchants",
            "MerchantConfigs by condition and status.",
            labels=["condition", "status"],
        )
        tally = Tally(pair for conditions in self._look() for pair in conditions.items())
        for (condition, status), count in sorted(tally.items()):
            family.add_metric([condition, status], count)
        yield family


def register(look: Callable[[], Iterable[Conditions]]) -> None:
    """Count these objects from now on."""
    REGISTRY.register(MerchantsCollector(look))

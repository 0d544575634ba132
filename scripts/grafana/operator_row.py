"""The operator's row of the page Operations."""

from __future__ import annotations

from grafana import runbooks
from grafana.panels import Kind, Panel, Query, Row, Unit, more_is_worse
from grafana.promql import largest, per_minute, quantile, series

OPERATOR = Row(
    "Operator (Kubernetes only)",
    (
        Panel(
            title="MerchantConfigs by condition",
            description="How many MerchantConfigs have each condition in each status.",
            unit=Unit.COUNT,
            queries=(
                Query(
                    largest("mpesa_operator_merchants", by="condition, status"),
                    "{{condition}}={{status}}",
                ),
            ),
            runbook=runbooks.MERCHANT_NOT_READY,
        ),
        Panel(
            title="MerchantConfigs that cannot be read",
            description="Objects whose spec this version of the operator does not understand.",
            unit=Unit.COUNT,
            queries=(Query(largest("mpesa_operator_invalid_objects"), "objects"),),
            runbook=runbooks.MERCHANT_NOT_READY,
        ),
        Panel(
            title="Reconciles by outcome",
            description="Looks at one MerchantConfig. Errors are tried again after a pause.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(
                    per_minute("mpesa_operator_reconcile_seconds_count", by="outcome"),
                    "{{outcome}}",
                ),
            ),
            runbook=runbooks.OPERATOR_SILENT,
        ),
        Panel(
            title="Time of a reconcile, p95",
            description="Including the question to Daraja whether the credentials are good.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    quantile(0.95, "mpesa_operator_reconcile_seconds", by="outcome"), "{{outcome}}"
                ),
            ),
            runbook=runbooks.OPERATOR_SILENT,
        ),
        Panel(
            title="Propagation of a change",
            description="From a written merchant file until every ready pod has loaded it.",
            unit=Unit.SECONDS,
            queries=tuple(
                Query(quantile(q, "mpesa_operator_propagation_seconds"), name)
                for q, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            runbook=runbooks.CONFIG_STALE,
        ),
        Panel(
            title="Credentials that Daraja was asked about",
            description="By what it said. refused: the merchant's key or secret is wrong.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(per_minute("mpesa_operator_token_checks_total", by="outcome"), "{{outcome}}"),
            ),
            runbook=runbooks.DARAJA_AUTH,
        ),
        Panel(
            title="Bundle: bytes of its limit",
            description="A Secret holds 1 MiB at most; the operator begins a new shard before.",
            unit=Unit.SHARE,
            thresholds=more_is_worse(0.8, 0.95),
            queries=(
                Query(
                    f"max by (shard) ({series('mpesa_operator_bundle_bytes')})"
                    f" / on () group_left () max({series('mpesa_operator_bundle_limit_bytes')})",
                    "shard {{shard}}",
                ),
            ),
            runbook=runbooks.BUNDLE,
        ),
        Panel(
            title="Merchants without a MerchantConfig",
            description="Published merchants whose object vanished; they drain, and then they go.",
            unit=Unit.COUNT,
            thresholds=more_is_worse(1, 5),
            queries=(Query(largest("mpesa_operator_orphaned_merchants"), "merchants"),),
            runbook=runbooks.ORPHANED,
        ),
        Panel(
            title="Bundle: merchant files",
            description="Merchant files in each shard.",
            unit=Unit.COUNT,
            queries=(
                Query(largest("mpesa_operator_bundle_entries", by="shard"), "shard {{shard}}"),
            ),
            runbook=runbooks.BUNDLE,
        ),
        Panel(
            title="Silence of the operator",
            description="Since its loop last came round, and since all MerchantConfigs were last"
            " listed. While it is silent, payments go on; changes of merchants wait.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    f"time() - max({series('mpesa_operator_heartbeat_timestamp_seconds')})", "loop"
                ),
                Query(
                    f"time() - max({series('mpesa_operator_last_sweep_timestamp_seconds')})", "list"
                ),
            ),
            runbook=runbooks.OPERATOR_SILENT,
        ),
    ),
)

"""Whether merchants are told: first tries and retries apart."""

from __future__ import annotations

from grafana import runbooks
from grafana.panels import Dashboard, Kind, Panel, Query, Row, Unit, more_is_worse
from grafana.promql import increase, largest, per_minute, quantile, total_rate

_FIRST = 'attempt="first"'
_RETRY = 'attempt="retry"'
_DELIVERED = 'outcome="delivered"'
_QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))

NOW = Row(
    "Now",
    (
        Panel(
            title="Webhooks due",
            description="Webhooks that should have been tried by now, counted to 100,000. Those of"
            " parked endpoints wait on purpose and become due later.",
            unit=Unit.COUNT,
            kind=Kind.STAT,
            width=6,
            decimals=0,
            queries=(Query(largest("mpesa_webhooks_due"), "due"),),
            runbook=runbooks.WEBHOOKS_SLOW,
        ),
        Panel(
            title="Longest due",
            description="How long the oldest of them has been due.",
            unit=Unit.SECONDS,
            kind=Kind.STAT,
            width=6,
            thresholds=more_is_worse(10, 60),
            queries=(Query(largest("mpesa_webhook_oldest_due_age_seconds"), "longest due"),),
            runbook=runbooks.WEBHOOKS_SLOW,
        ),
        Panel(
            title="Parked endpoints",
            description="Endpoints that failed ten times in a row: tried again after a pause that"
            " grows to 15 minutes. Nothing is dropped.",
            unit=Unit.COUNT,
            kind=Kind.STAT,
            width=6,
            decimals=0,
            thresholds=more_is_worse(1, 5),
            queries=(Query(largest("mpesa_webhook_parked_endpoints"), "parked"),),
            runbook=runbooks.ENDPOINT_PARKED,
        ),
        Panel(
            title="Given up, in the time shown",
            description="Deliveries whose whole schedule failed. They stay, and can be sent again"
            " with `mpesa-gateway deliveries redeliver`.",
            unit=Unit.COUNT,
            kind=Kind.STAT,
            width=6,
            decimals=0,
            thresholds=more_is_worse(1, 10),
            queries=(Query(increase("mpesa_webhook_exhausted_total"), "given up"),),
            runbook=runbooks.WEBHOOKS_EXHAUSTED,
        ),
    ),
)

TRIES = Row(
    "Tries",
    (
        Panel(
            title="First tries by outcome",
            description="The first try of each webhook. delivered: 2xx. failed: any other answer"
            " or none. refused: the guard did not call that address. unknown: our process died.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(
                    per_minute("mpesa_webhook_attempts_total", _FIRST, by="outcome"), "{{outcome}}"
                ),
            ),
            runbook=runbooks.WEBHOOKS_FAILING,
        ),
        Panel(
            title="Retries by outcome",
            description="Every later try. A wall of failures here with good first tries is one"
            " broken endpoint, not a broken gateway.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(
                    per_minute("mpesa_webhook_attempts_total", _RETRY, by="outcome"), "{{outcome}}"
                ),
            ),
            runbook=runbooks.WEBHOOKS_FAILING,
        ),
        Panel(
            title="Share of tries that delivered",
            description="First tries and retries apart: retries go to endpoints that failed"
            " before, so theirs is lower.",
            unit=Unit.SHARE,
            maximum=1,
            queries=tuple(
                Query(
                    f"{total_rate('mpesa_webhook_attempts_total', which, _DELIVERED)}"
                    f" / {total_rate('mpesa_webhook_attempts_total', which)}",
                    legend,
                )
                for which, legend in ((_FIRST, "first tries"), (_RETRY, "retries"))
            ),
            runbook=runbooks.WEBHOOKS_FAILING,
        ),
        Panel(
            title="Failures by reason",
            description="Why tries failed: the answer's status, a time-out, a connection, a"
            " certificate, a name, or an address that the guard refuses.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            width=12,
            queries=(Query(per_minute("mpesa_webhook_failures_total", by="reason"), "{{reason}}"),),
            runbook=runbooks.WEBHOOKS_FAILING,
        ),
        Panel(
            title="Parked endpoints and webhooks due",
            description="A parked endpoint has its deliveries postponed; when it answers again,"
            " what waited becomes due at once.",
            unit=Unit.COUNT,
            width=12,
            queries=(
                Query(largest("mpesa_webhook_parked_endpoints"), "parked endpoints"),
                Query(largest("mpesa_webhooks_due"), "webhooks due"),
            ),
            runbook=runbooks.ENDPOINT_PARKED,
        ),
    ),
)

LAG = Row(
    "Lag",
    (
        Panel(
            title="Until the first try",
            description="From the end of a payment to the start of its first try: our part of the"
            " wait. Objective: 99.9 % within 10 s.",
            unit=Unit.SECONDS,
            thresholds=more_is_worse(1, 10),
            queries=tuple(
                Query(quantile(q, "mpesa_webhook_first_attempt_lag_seconds"), name)
                for q, name in _QUANTILES
            ),
            runbook=runbooks.WEBHOOKS_SLOW,
        ),
        Panel(
            title="Until delivered, at the first try",
            description="From the end of a payment to the end of the try that succeeded, for"
            " webhooks that the first try delivered: the endpoint's time is in it.",
            unit=Unit.SECONDS,
            queries=tuple(
                Query(quantile(q, "mpesa_webhook_delivery_lag_seconds", _FIRST), name)
                for q, name in _QUANTILES
            ),
            runbook=runbooks.WEBHOOKS_SLOW,
        ),
        Panel(
            title="Until delivered, by a retry",
            description="The same for webhooks that needed more than one try: the waits of the"
            " schedule are in it.",
            unit=Unit.SECONDS,
            queries=tuple(
                Query(quantile(q, "mpesa_webhook_delivery_lag_seconds", _RETRY), name)
                for q, name in _QUANTILES
            ),
            runbook=runbooks.WEBHOOKS_FAILING,
        ),
    ),
)

WEBHOOKS = Dashboard(
    "webhooks",
    "M-Pesa gateway: webhooks",
    "Whether merchants are told how payments ended: first tries and retries apart.",
    (NOW, TRIES, LAG),
)

"""The first page to look at: are the promises kept, does money come in, does anything wait?"""

from __future__ import annotations

from grafana import runbooks
from grafana.panels import (
    Dashboard,
    Kind,
    Panel,
    Query,
    Row,
    Unit,
    less_is_worse,
    more_is_worse,
)
from grafana.promql import increase, largest, per_minute, quantile, share_within, total_rate

# The objectives of docs/operations.md.
ACKNOWLEDGED = 0.9995
CALLBACKS_IN_TIME = 0.999
WEBHOOKS_IN_TIME = 0.999
CALLBACK_LIMIT_S = 5
WEBHOOK_LIMIT_S = 10


def _bad_share_of_acks(over: str) -> str:
    refused = increase("mpesa_callbacks_rejected_total", _UNAVAILABLE, over=over)
    taken = increase("mpesa_callback_ack_seconds_count", over=over)
    return f"{refused} / ({taken} + {refused})"


def _burn(bad_share: str, objective: float) -> str:
    """How fast the error budget burns: 1 uses it up exactly at the end of its 30 days."""
    return f"({bad_share}) / {1 - objective:.4g}"


def _late(seconds: float, histogram: str, over: str) -> str:
    return f"1 - {share_within(seconds, histogram, over)}"


_COMPLETED = 'status="COMPLETED"'
_FAILED = 'status="FAILED"'
_PENDING = 'status="PENDING"'
_FINAL = 'status!="PENDING"'
_UNAVAILABLE = 'reason="unavailable"'
_ACCEPTED = 'outcome="accepted"'

PROMISES = Row(
    "Promises, over the time shown",
    (
        Panel(
            title="Callbacks acknowledged",
            description="Callbacks that were kept, of those that had a right to be. Objective:"
            " 99.95 %. The others got a 503 because Postgres could not take them; Safaricom may"
            " not send them again, and queries have to find out.",
            unit=Unit.SHARE,
            kind=Kind.STAT,
            width=4,
            decimals=3,
            base_color="red",
            thresholds=less_is_worse(ACKNOWLEDGED),
            queries=(Query(f"1 - {_bad_share_of_acks('$__range')}", "acknowledged"),),
            runbook=runbooks.CALLBACKS_REFUSED,
        ),
        Panel(
            title="Callbacks applied within 5 s",
            description="From the arrival of a callback to the commit of what it did."
            " Objective: 99.9 %.",
            unit=Unit.SHARE,
            kind=Kind.STAT,
            width=4,
            decimals=3,
            base_color="red",
            thresholds=less_is_worse(CALLBACKS_IN_TIME),
            queries=(Query(share_within(CALLBACK_LIMIT_S, "mpesa_callback_lag_seconds"), "5 s"),),
            runbook=runbooks.CALLBACKS_SLOW,
        ),
        Panel(
            title="First webhook within 10 s",
            description="From the end of a payment to the start of its first webhook try, whatever"
            " the endpoint answered. Objective: 99.9 %. Endpoints that were failing already are"
            " not counted: those wait on purpose.",
            unit=Unit.SHARE,
            kind=Kind.STAT,
            width=4,
            decimals=3,
            base_color="red",
            thresholds=less_is_worse(WEBHOOKS_IN_TIME),
            queries=(
                Query(
                    share_within(WEBHOOK_LIMIT_S, "mpesa_webhook_first_attempt_lag_seconds"), "10 s"
                ),
            ),
            runbook=runbooks.WEBHOOKS_SLOW,
        ),
        Panel(
            title="Received in the last hour",
            description="Shillings of the payments that completed in the last hour, whatever time"
            " is shown.",
            unit=Unit.SHILLINGS,
            kind=Kind.STAT,
            width=4,
            decimals=0,
            queries=(
                Query(
                    increase("mpesa_transactions_amount_shillings_total", _COMPLETED, over="1h"),
                    "received",
                ),
            ),
            runbook=runbooks.MONEY,
        ),
        Panel(
            title="Payments that completed",
            description="Of the payments that ended. Customers cancel and run out of money, so"
            " this has no objective: know its usual value, and look at Payments when it falls.",
            unit=Unit.SHARE,
            kind=Kind.STAT,
            width=4,
            decimals=1,
            queries=(
                Query(
                    f"{increase('mpesa_transactions_total', _COMPLETED)}"
                    f" / {increase('mpesa_transactions_total', _FINAL)}",
                    "completed",
                ),
            ),
            runbook=runbooks.MONEY,
        ),
        Panel(
            title="Waiting for a person",
            description="Open conflicts, payments that only a person can settle, and callbacks in"
            " quarantine. It should be 0 in the evening.",
            unit=Unit.COUNT,
            kind=Kind.STAT,
            width=4,
            decimals=0,
            thresholds=more_is_worse(1, 10),
            queries=(
                Query(
                    f"{largest('mpesa_conflicts_open')}"
                    f" + {largest('mpesa_transactions_attention')}"
                    f" + {largest('mpesa_callbacks_quarantined')}",
                    "waiting",
                ),
            ),
            runbook=runbooks.CONFLICTS,
        ),
    ),
)

MONEY = Row(
    "Money",
    (
        Panel(
            title="Money per hour",
            description="The present rate: asked of customers, received, and not received. Asked"
            " and received differ by what failed and by what is still open.",
            unit=Unit.SHILLINGS_PER_HOUR,
            queries=tuple(
                Query(
                    f"3600 * {total_rate('mpesa_transactions_amount_shillings_total', matcher)}",
                    legend,
                )
                for matcher, legend in (
                    (_PENDING, "asked"),
                    (_COMPLETED, "received"),
                    (_FAILED, "failed"),
                )
            ),
            runbook=runbooks.MONEY,
        ),
        Panel(
            title="Payments",
            description="Payments that were started, that completed and that failed.",
            unit=Unit.PER_MINUTE,
            queries=tuple(
                Query(per_minute("mpesa_transactions_total", matcher), legend)
                for matcher, legend in (
                    (_PENDING, "started"),
                    (_COMPLETED, "completed"),
                    (_FAILED, "failed"),
                )
            ),
            runbook=runbooks.MONEY,
        ),
        Panel(
            title="Success rate",
            description="Completed, of the payments that ended; and accepted by Safaricom, of the"
            " prompts that were asked for. When both fall the cause is before the customer's"
            " phone, when only the first falls it is at the phone or behind it.",
            unit=Unit.SHARE,
            maximum=1,
            queries=(
                Query(
                    f"{total_rate('mpesa_transactions_total', _COMPLETED)}"
                    f" / {total_rate('mpesa_transactions_total', _FINAL)}",
                    "payments completed",
                ),
                Query(
                    f"{total_rate('mpesa_stk_push_total', _ACCEPTED)}"
                    f" / {total_rate('mpesa_stk_push_total')}",
                    "prompts accepted",
                ),
            ),
            runbook=runbooks.INITIATE_ERRORS,
        ),
    ),
)

LAG = Row(
    "Lag and backlog",
    (
        Panel(
            title="Callback lag",
            description="From the arrival of a callback to the commit of what it did. Only work"
            " that ended is in it: what is stuck shows in the ages beside.",
            unit=Unit.SECONDS,
            thresholds=more_is_worse(1, CALLBACK_LIMIT_S),
            queries=tuple(
                Query(quantile(q, "mpesa_callback_lag_seconds"), name)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            runbook=runbooks.CALLBACKS_SLOW,
        ),
        Panel(
            title="Oldest waiting work",
            description="Ages of the oldest callback that is not applied and of the webhook that"
            " is longest due. One worker reads them from Postgres; they vanish, and do not freeze,"
            " when Postgres is away.",
            unit=Unit.SECONDS,
            queries=(
                Query(largest("mpesa_callback_oldest_unprocessed_age_seconds"), "callback"),
                Query(largest("mpesa_webhook_oldest_due_age_seconds"), "webhook"),
            ),
            runbook=runbooks.CALLBACKS_STUCK,
        ),
        Panel(
            title="Backlog",
            description="Callbacks not applied yet, webhooks that are due, and payments that are"
            " pending. Pending payments follow the traffic; the other two should be near 0.",
            unit=Unit.COUNT,
            queries=(
                Query(largest("mpesa_callbacks_unprocessed"), "callbacks"),
                Query(largest("mpesa_webhooks_due"), "webhooks"),
                Query(largest("mpesa_transactions_pending"), "payments"),
            ),
            runbook=runbooks.CALLBACKS_STUCK,
        ),
    ),
)

BUDGETS = Row(
    "Error budgets",
    (
        Panel(
            title="Burn rate over an hour",
            description="How fast each objective's error budget of 30 days is used up. 1 is"
            " exactly as fast as allowed; the pager's fast alert is at 14.4.",
            unit=Unit.TIMES,
            width=12,
            thresholds=more_is_worse(1, 14.4),
            queries=(
                Query(_burn(_bad_share_of_acks("1h"), ACKNOWLEDGED), "callbacks acknowledged"),
                Query(
                    _burn(
                        _late(CALLBACK_LIMIT_S, "mpesa_callback_lag_seconds", "1h"),
                        CALLBACKS_IN_TIME,
                    ),
                    "callbacks in time",
                ),
                Query(
                    _burn(
                        _late(WEBHOOK_LIMIT_S, "mpesa_webhook_first_attempt_lag_seconds", "1h"),
                        WEBHOOKS_IN_TIME,
                    ),
                    "webhooks in time",
                ),
            ),
            runbook=runbooks.CALLBACKS_SLOW,
        ),
        Panel(
            title="Errors of the API",
            description="Answers of 500 and above, by route. 502 is Safaricom's refusal, 503 means"
            " that nothing was sent or kept.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            width=12,
            queries=(
                Query(
                    per_minute("mpesa_http_requests_total", 'status=~"5.."', by="route, status"),
                    "{{status}} {{route}}",
                ),
            ),
            runbook=runbooks.INITIATE_ERRORS,
        ),
    ),
)

OVERVIEW = Dashboard(
    "overview",
    "M-Pesa gateway: overview",
    "Are the promises kept, does money come in, does anything wait?",
    (PROMISES, MONEY, LAG, BUDGETS),
)

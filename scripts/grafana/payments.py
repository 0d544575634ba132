"""What became of payments, of Safaricom's prompts and of its callbacks."""

from __future__ import annotations

from grafana import runbooks
from grafana.panels import Dashboard, Kind, Panel, Query, Row, Unit, more_is_worse
from grafana.promql import increase, largest, per_minute, quantile, total_rate

_FINAL = 'status!="PENDING"'
_COMPLETED = 'status="COMPLETED"'
_BY_MERCHANT = "mpesa_merchant_transactions_total"

RESULTS = Row(
    "Results",
    (
        Panel(
            title="Results by cause",
            description="How payments ended, by whose doing it was: none when paid, customer"
            " (cancelled, no money, wrong PIN), merchant (set-up), request, safaricom, or unknown:"
            " nobody said, or a person ended it.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(per_minute("mpesa_transaction_results_total", by="cause"), "{{cause}}"),
            ),
            runbook=runbooks.RESULTS,
        ),
        Panel(
            title="Failures by reason",
            description="The ten most frequent reasons, in the catalogue's words: the same as in"
            " `failure.reason` of the webhook.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(
                    "topk(10, "
                    + per_minute("mpesa_transaction_results_total", 'cause!="none"', by="reason")
                    + " > 0)",
                    "{{reason}}",
                ),
            ),
            runbook=runbooks.RESULTS,
        ),
        Panel(
            title="Prompts by Safaricom's answer",
            description="accepted: on its way to the phone. unknown: it may be, and is never sent"
            " again. not_sent: nobody was asked, the caller may try again. refused: for good.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(Query(per_minute("mpesa_stk_push_total", by="outcome"), "{{outcome}}"),),
            runbook=runbooks.INITIATE_ERRORS,
        ),
    ),
)

STUCK = Row(
    "What is open",
    (
        Panel(
            title="Oldest pending payment",
            description="A customer has a minute for the PIN. What is much older has no callback,"
            " and Safaricom is asked after it.",
            unit=Unit.SECONDS,
            kind=Kind.STAT,
            width=6,
            thresholds=more_is_worse(300, 3600),
            queries=(Query(largest("mpesa_transaction_pending_oldest_age_seconds"), "oldest"),),
            runbook=runbooks.PAYMENTS_STUCK,
        ),
        Panel(
            title="Pending payments",
            description="Payments without an end, counted to 100,000.",
            unit=Unit.COUNT,
            kind=Kind.STAT,
            width=6,
            decimals=0,
            queries=(Query(largest("mpesa_transactions_pending"), "pending"),),
            runbook=runbooks.PAYMENTS_STUCK,
        ),
        Panel(
            title="Payments that need a person",
            description="What neither a callback nor a query could settle. `mpesa-gateway"
            " transactions list --stuck` has them.",
            unit=Unit.COUNT,
            kind=Kind.STAT,
            width=6,
            decimals=0,
            thresholds=more_is_worse(1, 10),
            queries=(Query(largest("mpesa_transactions_attention"), "need a person"),),
            runbook=runbooks.PAYMENTS_STUCK,
        ),
        Panel(
            title="Open conflicts",
            description="Truths that contradict a final state, such as money that was taken for a"
            " payment that had failed. Somebody's money: act today.",
            unit=Unit.COUNT,
            kind=Kind.STAT,
            width=6,
            decimals=0,
            thresholds=(more_is_worse(1, 1)[1],),
            queries=(Query(largest("mpesa_conflicts_open"), "open"),),
            runbook=runbooks.CONFLICTS,
        ),
        Panel(
            title="Age of the oldest pending payment",
            description="A line that rises with the clock is one payment that nothing settles.",
            unit=Unit.SECONDS,
            queries=(Query(largest("mpesa_transaction_pending_oldest_age_seconds"), "oldest"),),
            runbook=runbooks.PAYMENTS_STUCK,
        ),
        Panel(
            title="Payments without an end",
            description="All that are pending, and those of them that need a person.",
            unit=Unit.COUNT,
            queries=(
                Query(largest("mpesa_transactions_pending"), "pending"),
                Query(largest("mpesa_transactions_attention"), "need a person"),
            ),
            runbook=runbooks.PAYMENTS_STUCK,
        ),
        Panel(
            title="Conflicts found",
            description="By kind, in the hour before. paid_after_failed and second_receipt mean"
            " that money was taken.",
            unit=Unit.COUNT,
            kind=Kind.STACKED,
            queries=(
                Query(
                    increase("mpesa_reconciliation_conflicts_total", over="1h", by="kind"),
                    "{{kind}}",
                ),
            ),
            runbook=runbooks.CONFLICTS,
        ),
    ),
)

CALLBACKS = Row(
    "Callbacks",
    (
        Panel(
            title="Callbacks by what became of them",
            description="completed and failed ended a payment; confirming waits for a query;"
            " duplicate says what is known; quarantined is kept for a person.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(
                    per_minute("mpesa_callbacks_total", 'outcome!="received"', by="outcome"),
                    "{{outcome}}",
                ),
            ),
            runbook=runbooks.CALLBACKS_MISSING,
        ),
        Panel(
            title="Callbacks that were not taken",
            description="unavailable: Postgres could not keep it. unknown_token and not_allowed:"
            " not Safaricom, or an allowlist that has aged. too_large: over 1 MiB. guesses: from"
            " one address, too many on the plain path that name no payment.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(per_minute("mpesa_callbacks_rejected_total", by="reason"), "{{reason}}"),
            ),
            runbook=runbooks.CALLBACKS_REFUSED,
        ),
        Panel(
            title="Callbacks in quarantine",
            description="Kept, and applied to nothing: `mpesa-gateway callbacks list"
            " --quarantined` says why.",
            unit=Unit.COUNT,
            queries=(Query(largest("mpesa_callbacks_quarantined"), "in quarantine"),),
            runbook=runbooks.QUARANTINE,
        ),
        Panel(
            title="Accepted prompts and callbacks",
            description="Each accepted prompt has a callback a minute later. Prompts without"
            " callbacks mean that Safaricom cannot reach us: look at the ingress, the certificate"
            " and the callback URL.",
            unit=Unit.PER_MINUTE,
            queries=(
                Query(per_minute("mpesa_stk_push_total", 'outcome="accepted"'), "prompts accepted"),
                Query(
                    per_minute("mpesa_callbacks_total", 'outcome="received"'), "callbacks received"
                ),
            ),
            runbook=runbooks.CALLBACKS_MISSING,
        ),
        Panel(
            title="Time to acknowledge a callback",
            description="From its last byte to our answer, the commit included. Safaricom's"
            " patience is a few seconds.",
            unit=Unit.SECONDS,
            queries=tuple(
                Query(quantile(q, "mpesa_callback_ack_seconds"), name)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            runbook=runbooks.CALLBACKS_REFUSED,
        ),
        Panel(
            title="Callback lag",
            description="From its arrival to the commit of what it did.",
            unit=Unit.SECONDS,
            queries=tuple(
                Query(quantile(q, "mpesa_callback_lag_seconds"), name)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            runbook=runbooks.CALLBACKS_SLOW,
        ),
    ),
)

MERCHANTS = Row(
    "By merchant (only with MPESA_METRICS_MERCHANT_LABEL=true)",
    (
        Panel(
            title="Payments started, by merchant",
            description="The ten busiest. Merchants beyond MPESA_METRICS_MERCHANT_MAX share the"
            " name `other`.",
            unit=Unit.PER_MINUTE,
            width=12,
            kind=Kind.STACKED,
            queries=(
                Query(
                    "topk(10, " + per_minute(_BY_MERCHANT, 'status="PENDING"', by="merchant") + ")",
                    "{{merchant}}",
                ),
            ),
            runbook=runbooks.MERCHANTS,
        ),
        Panel(
            title="Success rate, by merchant",
            description="Completed, of the payments that ended. The ten lowest: a merchant near 0"
            " among others that are well has wrong credentials or a wrong short code.",
            unit=Unit.SHARE,
            width=12,
            maximum=1,
            queries=(
                Query(
                    "bottomk(10, "
                    f"{total_rate(_BY_MERCHANT, _COMPLETED, by='merchant')}"
                    f" / {total_rate(_BY_MERCHANT, _FINAL, by='merchant')})",
                    "{{merchant}}",
                ),
            ),
            runbook=runbooks.MERCHANTS,
        ),
    ),
    collapsed=True,
)

PAYMENTS = Dashboard(
    "payments",
    "M-Pesa gateway: payments",
    "How payments end and by whose doing, what is stuck, and what Safaricom called back.",
    (RESULTS, STUCK, CALLBACKS, MERCHANTS),
)

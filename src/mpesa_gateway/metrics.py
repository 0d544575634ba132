"""Every Prometheus metric, declared once. Units end the names; no phone, id or secret in a label.

One process per pod, so no multiprocess directory: exemplars and custom collectors work.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# Lags: the SLO is 5 s for callbacks and 10 s for first webhooks, a crash costs about 30 s.
_LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_ACK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
_DARAJA_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 20)

callback_lag_seconds = Histogram(
    "mpesa_callback_lag_seconds",
    "From a callback's arrival to the commit of what it did.",
    buckets=_LAG_BUCKETS,
)
callback_ack_seconds = Histogram(
    "mpesa_callback_ack_seconds",
    "From a callback's last byte to its answer.",
    buckets=_ACK_BUCKETS,
)
callbacks_total = Counter(
    "mpesa_callbacks_total",
    "Callbacks by what became of them: received, then one outcome each.",
    ["outcome"],
)
callbacks_rejected_total = Counter(
    "mpesa_callbacks_rejected_total", "Callbacks that were not taken.", ["reason"]
)
webhook_attempts_total = Counter(
    "mpesa_webhook_attempts_total", "Webhook tries.", ["outcome", "attempt"]
)
webhook_failures_total = Counter(
    "mpesa_webhook_failures_total", "Webhook tries that failed.", ["reason"]
)
webhook_delivery_lag_seconds = Histogram(
    "mpesa_webhook_delivery_lag_seconds",
    "From the end of a payment to the end of the webhook try that succeeded.",
    ["attempt"],
    buckets=_LAG_BUCKETS,
)
webhook_exhausted_total = Counter(
    "mpesa_webhook_exhausted_total", "Deliveries whose schedule ended without success."
)
stk_push_total = Counter("mpesa_stk_push_total", "STK pushes by outcome.", ["outcome"])
daraja_request_seconds = Histogram(
    "mpesa_daraja_request_seconds",
    "Calls to Safaricom.",
    ["operation", "outcome"],
    buckets=_DARAJA_BUCKETS,
)
daraja_budget_remaining = Gauge(
    "mpesa_daraja_budget_remaining_ratio",
    "What is left of a cluster-wide budget when last asked, 0 to 1.",
    ["operation"],
)
daraja_token_rejected_total = Counter(
    "mpesa_daraja_token_rejected_total",
    "Tokens that Safaricom refused before they expired: another program uses the same app.",
)
transactions_total = Counter(
    "mpesa_transactions_total", "Transactions created (PENDING) and ended.", ["status"]
)
sweeper_rescued_total = Counter(
    "mpesa_sweeper_rescued_total", "Work that no wake-up announced in time.", ["stage"]
)
stale_completions_total = Counter(
    "mpesa_stale_completions_total",
    "Work finished after its lease had passed to another worker; the result was not used.",
    ["stage"],
)
wakeups_dropped_total = Counter(
    "mpesa_wakeups_dropped_total", "Wake-ups that Redis did not take; the sweeper finds the rows."
)
queue_messages_rejected_total = Counter(
    "mpesa_queue_messages_rejected_total", "Queue messages that are not ours, dropped unread."
)
reconciliation_conflicts_total = Counter(
    "mpesa_reconciliation_conflicts_total", "Truths that contradict a final state.", ["kind"]
)
merchant_config_errors = Gauge(
    "mpesa_merchant_config_errors", "Merchant files that could not be used at the last reading."
)
config_last_reload_successful = Gauge(
    "mpesa_config_last_reload_successful", "1 when every merchant file was usable."
)

# Ages and sizes, read from Postgres by one elected worker; see `ages.py`.
AGES: dict[str, str] = {
    "mpesa_callback_oldest_unprocessed_age_seconds": "Age of the oldest callback not applied yet.",
    "mpesa_webhook_oldest_due_age_seconds": "How long the oldest due webhook has been due.",
    "mpesa_webhook_parked_endpoints": "Endpoints left alone because they keep failing.",
    "mpesa_transaction_pending_oldest_age_seconds": "Age of the oldest pending transaction.",
}

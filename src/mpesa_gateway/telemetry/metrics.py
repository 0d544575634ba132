"""Every Prometheus metric, declared once. Units end the names; no phone, id or secret in a label.

One process per pod, so no multiprocess directory: exemplars and custom collectors work. Series that
an alert or a panel asks for exist from the start, at 0: Prometheus sees no increase in a counter
that appears at 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product

from prometheus_client import Counter, Gauge, Histogram

from mpesa_gateway.domain.delivery import AttemptOutcome
from mpesa_gateway.domain.push import PushClass
from mpesa_gateway.domain.query import QueryClass
from mpesa_gateway.domain.results import CATALOGUE, PUSH_REASONS, RESOLVED_FAILED
from mpesa_gateway.domain.settlement import ConflictKind
from mpesa_gateway.domain.transaction import Status

# Lags: the SLO is 5 s for callbacks and 10 s for first webhooks, a crash costs about 30 s.
_LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_ACK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
_DARAJA_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 20)
# A push is part of POST /initiate; everything else takes milliseconds.
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

http_requests_total = Counter(
    "mpesa_http_requests_total", "Answers of the API by route and status.", ["route", "status"]
)
http_request_seconds = Histogram(
    "mpesa_http_request_seconds",
    "From a request's head to its answer.",
    ["route"],
    buckets=_REQUEST_BUCKETS,
)

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
callbacks_held = Gauge(
    "mpesa_callbacks_held",
    "Callbacks that were answered 503 and are held in memory until Postgres takes them.",
)
callbacks_dropped_total = Counter(
    "mpesa_callbacks_dropped_total",
    "Callbacks that were answered 503 and not held: there was no room. Their payments are queried.",
)
push_outcomes_held = Gauge(
    "mpesa_push_outcomes_held",
    "Outcomes of pushes that are held in memory until Postgres takes them.",
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
webhook_first_attempt_lag_seconds = Histogram(
    "mpesa_webhook_first_attempt_lag_seconds",
    "From the end of a payment to the start of its first webhook try, whatever came of it;"
    " endpoints that were failing already are not counted.",
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
daraja_budget_refused_total = Counter(
    "mpesa_daraja_budget_refused_total",
    "Calls that were not made because the cluster-wide budget was used up.",
    ["operation"],
)
daraja_token_rejected_total = Counter(
    "mpesa_daraja_token_rejected_total",
    "Tokens that Safaricom refused before they expired: another program uses the same app.",
)
transactions_total = Counter(
    "mpesa_transactions_total", "Transactions created (PENDING) and ended.", ["status"]
)
merchant_transactions_total = Counter(
    "mpesa_merchant_transactions_total",
    "Transactions created (PENDING) and ended, by merchant; only where the setting asks for it.",
    ["merchant", "status"],
)
transactions_amount_total = Counter(
    "mpesa_transactions_amount_shillings_total",
    "Shillings of transactions created (PENDING) and ended.",
    ["status"],
)
transaction_results_total = Counter(
    "mpesa_transaction_results_total",
    "Ends of transactions: whose doing (none when paid), and the catalogue's word for it.",
    ["cause", "reason"],
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
config_last_look = Gauge(
    "mpesa_config_last_look_timestamp_seconds",
    "When the merchant files were last looked at without a fault, changed or not.",
)
config_hash = Gauge(
    "mpesa_config_hash",
    "The merchant files that this process works with, as a number: equal in pods that agree.",
)
database_writable = Gauge(
    "mpesa_database_writable",
    "1 while Postgres takes the writes of this process, 0 within 15 s when it does not: a full"
    " disk, a read-only server, commits that wait, or no connection.",
)
# Until a process has watched for a moment.
database_writable.set(1)
clock_skew_seconds = Gauge(
    "mpesa_clock_skew_seconds",
    "How far the clock of this process's machine is ahead of Postgres's, whose time is used.",
)
# Until it was read.
clock_skew_seconds.set(math.nan)
schema_version = Gauge(
    "mpesa_schema_version", "The version of the database's schema that this process last saw."
)
# Only the API looks. A worker's 0 would be a false alarm.
schema_version.set(math.nan)
schema_version_needed = Gauge(
    "mpesa_schema_version_needed", "The version of the schema that this process was built for."
)

acknowledged_lost_total = Counter(
    "mpesa_acknowledged_lost_total",
    "Rows that this process saw committed and the database has lost; at least 1 for each loss.",
)
lost_rows_total = Counter(
    "mpesa_lost_rows_total",
    "Lost payments, outcomes, callbacks and webhooks by kind, and whether they were written again.",
    ["kind", "written_again"],
)
recovery_hold = Gauge(
    "mpesa_recovery_hold", "1 while no new payment starts, until an operator accepts a loss."
)
database_durability = Gauge(
    "mpesa_database_durability",
    "The database's level of durability: 1 when it is what was decided, 0 when it is weaker.",
    ["level"],
)

# The pools' state, read when Prometheus asks; see `exporters/pools.py`.
POOLS: dict[str, str] = {
    "mpesa_db_pool_max_connections": "Most connections to Postgres that a pool may open.",
    "mpesa_db_pool_used_connections": "Connections in use.",
    "mpesa_db_pool_waiting_requests": "Threads that wait for a connection.",
}

# Ages and sizes, read from Postgres by one elected worker; see `exporters/backlog.py`.
AGES: dict[str, str] = {
    "mpesa_callback_oldest_unprocessed_age_seconds": "Age of the oldest callback not applied yet.",
    "mpesa_webhook_oldest_due_age_seconds": "How long the oldest due webhook has been due.",
    "mpesa_webhook_parked_endpoints": "Endpoints left alone because they keep failing.",
    "mpesa_transaction_pending_oldest_age_seconds": "Age of the oldest pending transaction.",
    "mpesa_callbacks_unprocessed": "Callbacks not applied yet, counted to 100,000.",
    "mpesa_callbacks_quarantined": "Callbacks in quarantine, counted to 100,000.",
    "mpesa_webhooks_due": "Webhooks that are due now, counted to 100,000.",
    "mpesa_transactions_pending": "Pending transactions, counted to 100,000.",
    "mpesa_transactions_attention": "Pending transactions that need a person, counted to 100,000.",
    "mpesa_conflicts_open": "Conflicts that nobody has closed yet, counted to 100,000.",
    "mpesa_partition_months": "Months with their partitions made, this one and those that follow.",
}

OTHER_MERCHANTS = "other"
# Whose doing it is that a payment was paid.
NOBODY = "none"


class MerchantLabels:
    """Which merchants have a series of their own: none unless asked for, and never too many."""

    def __init__(self) -> None:
        self._limit = 0
        self._known: set[str] = set()

    def allow(self, limit: int) -> None:
        """Label so many merchants from now on; those seen first. 0: none."""
        self._limit = limit
        self._known = set()

    def count(self, merchant: str, status: Status) -> None:
        """Count a transaction of the merchant, if merchants are counted."""
        if self._limit == 0:
            return
        if merchant not in self._known and len(self._known) < self._limit:
            self._known.add(merchant)
        label = merchant if merchant in self._known else OTHER_MERCHANTS
        merchant_transactions_total.labels(label, status.value).inc()


MERCHANT_LABELS = MerchantLabels()


_WHICH = ("first", "retry")
# The label values, by label, of series that exist before anything happens.
_FROM_THE_START: tuple[tuple[Counter | Histogram, tuple[Iterable[str], ...]], ...] = (
    (
        callbacks_total,
        (("received", "quarantined", "orphan", "completed", "failed", "duplicate", "conflict"),),
    ),
    (
        callbacks_rejected_total,
        (("too_large", "unavailable", "unknown_token", "not_allowed", "not_allowed_good_token"),),
    ),
    (
        webhook_attempts_total,
        ([it.value for it in AttemptOutcome if it is not AttemptOutcome.STARTED], _WHICH),
    ),
    (webhook_delivery_lag_seconds, (_WHICH,)),
    (stk_push_total, ([it.lower() for it in PushClass],)),
    (
        daraja_request_seconds,
        (("push",), [it.lower() for it in PushClass] + ["throttled"]),
    ),
    (daraja_request_seconds, (("query",), [it.lower() for it in QueryClass])),
    (daraja_request_seconds, (("token",), ("ok", "refused", "unreachable"))),
    (daraja_budget_refused_total, (("push", "query"),)),
    (transactions_total, (Status,)),
    (transactions_amount_total, (Status,)),
    (reconciliation_conflicts_total, (ConflictKind,)),
    (lost_rows_total, (("payment", "outcome", "callback"), ("yes", "no"))),
    (lost_rows_total, (("webhook",), ("no",))),
    (sweeper_rescued_total, (("push", "callback", "delivery"),)),
    (stale_completions_total, (("query", "delivery"),)),
    (http_requests_total, (("/initiate",), ("201", "500", "503"))),
)
for _meaning in (*CATALOGUE.values(), *PUSH_REASONS.values(), RESOLVED_FAILED):
    transaction_results_total.labels(_meaning.cause or NOBODY, _meaning.reason)
for _metric, _values in _FROM_THE_START:
    for _labels in product(*_values):
        _metric.labels(*_labels)

"""The worlds in which the alerts of webhooks, merchants and the platform ring, and do not.

One row a case, as in `payment_alerts.py`.
"""

from __future__ import annotations

from harness.alerts import BOTH, PAGE, SILENT, TICKET, Case


def _first_tries(good: str, all_: str) -> dict[str, str]:
    name = "mpesa_webhook_first_attempt_lag_seconds"
    return {f'{name}_bucket{{le="10.0"}}': good, f"{name}_count": all_}


def _tries(delivered: str, failed: str) -> dict[str, str]:
    name = "mpesa_webhook_attempts_total"
    return {
        f'{name}{{attempt="first",outcome="delivered"}}': delivered,
        f'{name}{{attempt="first",outcome="failed"}}': failed,
        f'{name}{{attempt="retry",outcome="failed"}}': "0+9x99",
    }


def _pods(name: str, first: str, second: str) -> dict[str, str]:
    return {f'{name}{{pod="api"}}': first, f'{name}{{pod="worker"}}': second}


def _pool(used: str, waiting: str) -> dict[str, str]:
    return {
        'mpesa_db_pool_max_connections{pool="work"}': "20x40",
        'mpesa_db_pool_used_connections{pool="work"}': used,
        'mpesa_db_pool_waiting_requests{pool="work"}': waiting,
    }


DUE_AGE = "mpesa_webhook_oldest_due_age_seconds"
PENDING_AGE = "mpesa_transaction_pending_oldest_age_seconds"
PARKED = "mpesa_webhook_parked_endpoints"
READY = 'mpesa_operator_merchants{condition="Ready",status="True"}'
NOT_READY = 'mpesa_operator_merchants{condition="Ready",status="False"}'
SUSPENDED = 'mpesa_operator_merchants{condition="Ready",status="Suspended"}'
HEARTBEAT = "mpesa_operator_heartbeat_timestamp_seconds"
SWEEP = "mpesa_operator_last_sweep_timestamp_seconds"
ORPHANED = "mpesa_operator_orphaned_merchants"
LOOK = "mpesa_config_last_look_timestamp_seconds"
RELOADED = "mpesa_config_last_reload_successful"
FILE_ERRORS = "mpesa_merchant_config_errors"
HASH = "mpesa_config_hash"
BYTES, LIMIT = "mpesa_operator_bundle_bytes", "mpesa_operator_bundle_limit_bytes"
VERSION, NEEDED = "mpesa_schema_version", "mpesa_schema_version_needed"
WRITABLE = "mpesa_database_writable"
SKEW = "mpesa_clock_skew_seconds"
MONTHS = "mpesa_partition_months"
DROPPED = "mpesa_wakeups_dropped_total"
RESCUED = 'mpesa_sweeper_rescued_total{stage="callback"}'
# promtool's clock begins at 0: a time stamp that moves with it.
MOVES = "0+60x99"

PLATFORM_CASES: tuple[Case, ...] = (
    # --- webhooks --------------------------------------------------------------------------------
    Case("MpesaWebhookSlow", "one in ten late", 70, BOTH, _first_tries("0+9x99", "0+10x99")),
    Case("MpesaWebhookSlow", "all in time", 70, SILENT, _first_tries("0+10x99", "0+10x99")),
    Case(
        "MpesaWebhookSlow",
        "one late in an hour of one",
        70,
        SILENT,
        _first_tries("0x99", "0x40 1x50"),
    ),
    Case(
        "MpesaWebhookSlow",
        "0.2 % late for three days",
        4320,
        TICKET,
        _first_tries("0+499x4400", "0+500x4400"),
    ),
    Case(
        "MpesaWebhooksFailing",
        "the receiver of one merchant in two is down",
        40,
        TICKET,
        _tries("0+1x99", "0+1x99"),
        fault="receiver down",
    ),
    Case(
        "MpesaWebhooksFailing",
        "one in ten fails; retries fail all the time",
        40,
        SILENT,
        _tries("0+9x99", "0+1x99"),
    ),
    Case("MpesaWebhooksFailing", "too few to judge", 40, SILENT, _tries("0x99", "0x20 4x70")),
    Case("MpesaWebhookStuck", "nobody sends", 9, PAGE, {DUE_AGE: "0+60x20"}),
    Case("MpesaWebhookStuck", "a slow minute", 9, SILENT, {DUE_AGE: "0 0 0 200 290 0x9"}),
    Case(
        "MpesaWebhookExhausted",
        "one gave up",
        15,
        TICKET,
        {"mpesa_webhook_exhausted_total": "0x9 1x90"},
        fault="receiver down for longer than the retry schedule",
    ),
    Case(
        "MpesaWebhookExhausted",
        "one gave up two hours ago",
        90,
        SILENT,
        {"mpesa_webhook_exhausted_total": "7x9 8x99"},
    ),
    Case(
        "MpesaEndpointParked",
        "an endpoint is down",
        20,
        TICKET,
        {PARKED: "0 1x40"},
        fault="receiver down, ten failures in a row",
    ),
    Case("MpesaEndpointParked", "it came back within minutes", 20, SILENT, {PARKED: "0 1x9 0x30"}),
    # --- merchants -------------------------------------------------------------------------------
    Case(
        "MpesaMerchantNotReady",
        "credentials that Daraja refuses",
        20,
        TICKET,
        {NOT_READY: "0 2x40", READY: "9x40"},
        fault="wrong credentials in a MerchantConfig",
    ),
    Case(
        "MpesaMerchantNotReady",
        "one is suspended, one was just made",
        20,
        SILENT,
        {NOT_READY: "0x15 1x9 0x9", SUSPENDED: "1x40", READY: "9x40"},
    ),
    Case(
        "MpesaMerchantFileUnusable",
        "a file is broken",
        10,
        TICKET,
        _pods(FILE_ERRORS, "0 1x40", "0 1x40"),
        fault="a broken merchant file",
    ),
    Case(
        "MpesaMerchantFileUnusable",
        "it was broken for two minutes",
        10,
        SILENT,
        _pods(FILE_ERRORS, "0 1 1 0x40", "0x40"),
    ),
    Case(
        "MpesaConfigStale",
        "the worker's volume is stuck",
        20,
        TICKET,
        {**_pods(HASH, "1 2x40", "1x40"), **_pods(LOOK, MOVES, MOVES)},
        fault="a pod whose Secret volume is not refreshed",
    ),
    Case(
        "MpesaConfigStale",
        "a pod's watcher is dead",
        20,
        TICKET,
        {**_pods(HASH, "7x40", "7x40"), **_pods(LOOK, MOVES, "0 60 120x40")},
    ),
    Case(
        "MpesaConfigStale",
        "a pod cannot read the directory",
        20,
        TICKET,
        {**_pods(RELOADED, "1x40", "1 0x40"), **_pods(FILE_ERRORS, "0x40", "0x40")},
    ),
    Case(
        "MpesaConfigStale",
        "pods agree after a change; another alert tells of broken files",
        20,
        SILENT,
        {
            **_pods(HASH, "1 2x40", "1x5 2x40"),
            **_pods(LOOK, MOVES, MOVES),
            **_pods(RELOADED, "0x40", "0x40"),
            **_pods(FILE_ERRORS, "1x40", "1x40"),
        },
    ),
    Case("MpesaConfigStale", "no merchant files at all", 20, SILENT, _pods(LOOK, "0x40", "0x40")),
    # --- the operator ----------------------------------------------------------------------------
    Case(
        "MpesaOperatorSilent",
        "its pod is gone",
        40,
        TICKET,
        {HEARTBEAT: "0+60x20 _x40", SWEEP: "0+60x20 _x40"},
        fault="operator killed, and not started again",
    ),
    Case("MpesaOperatorSilent", "it stands still", 20, TICKET, {HEARTBEAT: "0+60x5 300x40"}),
    Case(
        "MpesaOperatorSilent",
        "it may not list",
        30,
        TICKET,
        {HEARTBEAT: MOVES, SWEEP: "0+60x5 300x40"},
    ),
    Case("MpesaOperatorSilent", "it works", 40, SILENT, {HEARTBEAT: MOVES, SWEEP: MOVES}),
    Case("MpesaOperatorSilent", "there is no operator", 40, SILENT, {PENDING_AGE: "0x60"}),
    Case("MpesaMerchantsOrphaned", "seven of them", 20, PAGE, {ORPHANED: "0x5 7x40"}),
    Case("MpesaMerchantsOrphaned", "none", 20, SILENT, {ORPHANED: "0x40"}),
    Case(
        "MpesaBundleNearLimit",
        "90 % of a Secret",
        20,
        TICKET,
        {
            f'{BYTES}{{shard="0"}}': "900000x40",
            f'{BYTES}{{shard="1"}}': "9x40",
            LIMIT: "1000000x40",
        },
    ),
    Case(
        "MpesaBundleNearLimit",
        "half of one",
        20,
        SILENT,
        {f'{BYTES}{{shard="0"}}': "500000x40", LIMIT: "1000000x40"},
    ),
    # --- the platform ----------------------------------------------------------------------------
    Case(
        "MpesaMigrationsPending",
        "an old database under a new program",
        10,
        TICKET,
        {**_pods(VERSION, "1x40", "_x40"), **_pods(NEEDED, "2x40", "2x40")},
        fault="a database restored from an old backup",
    ),
    Case(
        "MpesaMigrationsPending",
        "current, and a newer database after a rollback",
        10,
        SILENT,
        {**_pods(VERSION, "3x40", "_x40"), **_pods(NEEDED, "2x40", "3x40")},
    ),
    Case(
        "MpesaMigrationsPending",
        "nobody has looked yet",
        10,
        SILENT,
        {**_pods(VERSION, "_x40", "_x40"), **_pods(NEEDED, "2x40", "2x40")},
    ),
    Case(
        "MpesaWorkersSilent",
        "the ages disappear with Postgres",
        15,
        PAGE,
        {PENDING_AGE: "0x5 _x40", "mpesa_callback_ack_seconds_count": "0x40"},
        fault="Postgres stopped",
    ),
    Case(
        "MpesaWorkersSilent",
        "all of their metrics disappear",
        15,
        PAGE,
        {PENDING_AGE: "0x5 _x40", DROPPED: "0x5 _x40"},
        fault="every worker killed",
    ),
    Case("MpesaWorkersSilent", "they are there", 15, SILENT, {PENDING_AGE: "0x40"}),
    Case("MpesaWorkersSilent", "they were never there", 15, SILENT, _pods(NEEDED, "2x40", "2x40")),
    Case(
        "MpesaApiSilent",
        "only workers are left",
        15,
        PAGE,
        {f'{VERSION}{{pod="api"}}': "2x5 _x40", f'{VERSION}{{pod="worker"}}': "_x40"},
        fault="every API pod killed",
    ),
    Case("MpesaApiSilent", "one is there", 15, SILENT, _pods(VERSION, "2x40", "_x40")),
    Case(
        "MpesaWakeupsLost",
        "Redis takes nothing",
        25,
        TICKET,
        {DROPPED: "0+1x40", RESCUED: "0+1x40"},
        fault="Redis stopped",
    ),
    Case("MpesaWakeupsLost", "one was lost", 25, SILENT, {DROPPED: "0x40", RESCUED: "0x15 1x40"}),
    Case(
        "MpesaClockSkew",
        "one machine of two is ahead",
        10,
        TICKET,
        _pods(SKEW, "0.01x40", "600x40"),
        fault="a machine ten minutes ahead",
    ),
    Case("MpesaClockSkew", "both agree", 10, SILENT, _pods(SKEW, "0.5x40", "-1x40")),
    Case(
        "MpesaMonthMissing",
        "nobody makes the next month",
        90,
        TICKET,
        {MONTHS: "1x100"},
        fault="a role that may not create tables",
    ),
    Case("MpesaMonthMissing", "three are made ahead", 90, SILENT, {MONTHS: "4x100"}),
    Case("MpesaMonthMissing", "a month began", 90, SILENT, {MONTHS: "1x20 4x100"}),
    Case(
        "MpesaDatabasePoolFull",
        "all in use, and threads wait",
        10,
        TICKET,
        _pool("20x40", "0 3x40"),
        labels={"pool": "work"},
        fault="a slow Postgres",
    ),
    Case(
        "MpesaDatabaseNotWritable",
        "one process of two writes nothing",
        10,
        PAGE,
        _pods(WRITABLE, "1x40", "1 0x40"),
        fault="Postgres stopped",
    ),
    Case("MpesaDatabaseNotWritable", "all write", 10, SILENT, _pods(WRITABLE, "1x40", "1x40")),
    Case(
        "MpesaAcknowledgedLost",
        "payments are held",
        10,
        PAGE,
        {"mpesa_recovery_hold": "0x5 1x40", "mpesa_acknowledged_lost_total": "0x40"},
        fault="a database that lost payments",
    ),
    Case(
        "MpesaAcknowledgedLost",
        "rows were lost, and that was accepted at once",
        10,
        PAGE,
        {"mpesa_recovery_hold": "0x40", "mpesa_acknowledged_lost_total": "0x5 3x40"},
    ),
    Case(
        "MpesaAcknowledgedLost",
        "nothing was lost",
        10,
        SILENT,
        {"mpesa_recovery_hold": "0x40", "mpesa_acknowledged_lost_total": "0x40"},
    ),
    Case(
        "MpesaDatabaseNotDurable",
        "its replicas are asynchronous",
        20,
        TICKET,
        {'mpesa_database_durability{level="asynchronous"}': "0x40"},
        labels={"level": "asynchronous"},
        fault="asynchronous replicas",
    ),
    Case(
        "MpesaDatabaseNotDurable",
        "as was decided",
        20,
        SILENT,
        {'mpesa_database_durability{level="synchronous"}': "1x40"},
    ),
    Case("MpesaDatabasePoolFull", "all in use, nobody waits", 10, SILENT, _pool("20x40", "0x40")),
)

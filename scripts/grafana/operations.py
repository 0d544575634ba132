"""What carries the payments: Daraja, Postgres, Redis, the merchant files and the processes."""

from __future__ import annotations

from grafana import runbooks
from grafana.operator_row import OPERATOR
from grafana.panels import Dashboard, Kind, Panel, Query, Row, Unit, more_is_worse
from grafana.promql import (
    largest,
    of_our_processes,
    per_minute,
    quantile,
    rate,
    series,
)

WRITTEN = 'written_again="yes"'
_CALLS = "mpesa_daraja_request_seconds"

DARAJA = Row(
    "Daraja",
    (
        Panel(
            title="Calls by operation and outcome",
            description="Pushes, queries and tokens, by what came of them.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(
                Query(
                    per_minute(f"{_CALLS}_count", by="operation, outcome") + " > 0",
                    "{{operation}} {{outcome}}",
                ),
            ),
            runbook=runbooks.DARAJA_AUTH,
        ),
        Panel(
            title="Time of a call, p95",
            description="A push that is slow keeps its caller waiting: the API answers when"
            " Safaricom does.",
            unit=Unit.SECONDS,
            queries=(Query(quantile(0.95, _CALLS, by="operation"), "{{operation}}"),),
            runbook=runbooks.INITIATE_ERRORS,
        ),
        Panel(
            title="Throttled",
            description="Calls that Safaricom turned away as too many or because it was busy, and"
            " calls that we did not make because the cluster's own budget was used up.",
            unit=Unit.PER_MINUTE,
            queries=(
                Query(
                    per_minute(f"{_CALLS}_count", 'outcome="throttled"', by="operation"),
                    "{{operation}}, by Safaricom",
                ),
                Query(
                    per_minute("mpesa_daraja_budget_refused_total", by="operation"),
                    "{{operation}}, by our budget",
                ),
            ),
            runbook=runbooks.DARAJA_THROTTLING,
        ),
        Panel(
            title="Budget left",
            description="What is left of the budgets that all processes share, when last asked:"
            " the lowest of the processes. A budget that is off counts as full.",
            unit=Unit.SHARE,
            maximum=1,
            queries=(
                Query(
                    f"min by (operation) ({series('mpesa_daraja_budget_remaining_ratio')})",
                    "{{operation}}",
                ),
            ),
            runbook=runbooks.DARAJA_THROTTLING,
        ),
        Panel(
            title="Tokens that Safaricom refused",
            description="Refused before their time: another program uses the same Daraja app and"
            " takes our tokens away. And requests for a token that were refused: the credentials.",
            unit=Unit.PER_MINUTE,
            queries=(
                Query(per_minute("mpesa_daraja_token_rejected_total"), "token refused"),
                Query(
                    per_minute(f"{_CALLS}_count", 'operation="token"', 'outcome="refused"'),
                    "credentials refused",
                ),
            ),
            runbook=runbooks.DARAJA_AUTH,
        ),
        Panel(
            title="Time of an answer of the API, p95",
            description="By route. /initiate waits for Safaricom; all others take milliseconds.",
            unit=Unit.SECONDS,
            queries=(Query(quantile(0.95, "mpesa_http_request_seconds", by="route"), "{{route}}"),),
            runbook=runbooks.INITIATE_ERRORS,
        ),
    ),
)

STORES = Row(
    "Postgres and Redis",
    (
        Panel(
            title="Pools: connections in use",
            description="Of the connections that a pool may open, the busiest process. At 100 %"
            " callers wait, and after 5 s they get a 503.",
            unit=Unit.SHARE,
            maximum=1,
            thresholds=more_is_worse(0.8, 1),
            queries=(
                Query(
                    f"max by (pool) ({series('mpesa_db_pool_used_connections')}"
                    f" / {series('mpesa_db_pool_max_connections')})",
                    "{{pool}}",
                ),
            ),
            runbook=runbooks.POOLS,
        ),
        Panel(
            title="Pools: waiting for a connection",
            description="Threads that wait because every connection is in use.",
            unit=Unit.COUNT,
            queries=(
                Query(f"sum by (pool) ({series('mpesa_db_pool_waiting_requests')})", "{{pool}}"),
            ),
            runbook=runbooks.POOLS,
        ),
        Panel(
            title="Processes whose writes Postgres takes",
            description="The share of the processes that could write a row within the last seconds."
            " Below 100 %: a full disk, a read-only server, commits that wait, or no connection.",
            unit=Unit.SHARE,
            maximum=1,
            queries=(Query(f"avg ({series('mpesa_database_writable')})", "writable"),),
            runbook=runbooks.NOT_WRITABLE,
        ),
        Panel(
            title="Clocks: ahead of Postgres",
            description="Each machine's clock against Postgres's, whose time is used everywhere."
            " All alike: Postgres's own clock is wrong.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    f"max by (job, instance) ({series('mpesa_clock_skew_seconds')})",
                    "{{job}} {{instance}}",
                ),
            ),
            runbook=runbooks.CLOCKS,
        ),
        Panel(
            title="Months with partitions",
            description="Of the tables that grow with payments: this month and those that follow."
            " Workers make three ahead.",
            unit=Unit.COUNT,
            queries=(Query(largest("mpesa_partition_months"), "ready"),),
            runbook=runbooks.MONTHS,
        ),
        Panel(
            title="Held until Postgres takes it",
            description="Callbacks that were answered 503, and outcomes of pushes, in the memory of"
            " the API's processes. Dropped: there was no room, the payment is queried.",
            unit=Unit.COUNT,
            queries=(
                Query(f"sum ({series('mpesa_callbacks_held')})", "callbacks"),
                Query(f"sum ({series('mpesa_push_outcomes_held')})", "push outcomes"),
                Query(
                    f"sum (increase({series('mpesa_callbacks_dropped_total')}[5m]))",
                    "callbacks dropped in 5 minutes",
                ),
            ),
            runbook=runbooks.NOT_WRITABLE,
        ),
        Panel(
            title="Lost by the database",
            description="Rows that a process saw committed and that are gone, and whether new"
            " payments are held for it. What a process remembers is written again.",
            unit=Unit.COUNT,
            queries=(
                Query(
                    f"sum (increase({series('mpesa_acknowledged_lost_total')}[1h]))", "lost in 1 h"
                ),
                Query(
                    f"sum (increase({series('mpesa_lost_rows_total', WRITTEN)}[1h]))",
                    "written again in 1 h",
                ),
                Query(f"max ({series('mpesa_recovery_hold')})", "payments held"),
                Query(f"min ({series('mpesa_database_durability')})", "as durable as was decided"),
            ),
            runbook=runbooks.LOST,
        ),
        Panel(
            title="Rescued by the sweeper",
            description="Work whose wake-up never came, found in Postgres seconds later. A few"
            " after a restart are normal; a steady line means that Redis loses messages.",
            unit=Unit.PER_MINUTE,
            kind=Kind.STACKED,
            queries=(Query(per_minute("mpesa_sweeper_rescued_total", by="stage"), "{{stage}}"),),
            runbook=runbooks.WAKEUPS,
        ),
        Panel(
            title="Wake-ups that Redis did not take",
            description="Nothing is lost: the sweeper finds the rows, a few seconds later. Messages"
            " that are not ours are dropped unread: somebody else writes to our queue.",
            unit=Unit.PER_MINUTE,
            queries=(
                Query(per_minute("mpesa_wakeups_dropped_total"), "wake-ups not taken"),
                Query(per_minute("mpesa_queue_messages_rejected_total"), "messages not ours"),
            ),
            runbook=runbooks.WAKEUPS,
        ),
        Panel(
            title="Results that came too late",
            description="Work that ended after its lease had passed to another worker, so that its"
            " result was not used: a worker that stood still, or a lease that is too short.",
            unit=Unit.PER_MINUTE,
            queries=(Query(per_minute("mpesa_stale_completions_total", by="stage"), "{{stage}}"),),
            runbook=runbooks.WAKEUPS,
        ),
        Panel(
            title="Schema: seen and needed",
            description="The version of the schema in Postgres and the one that each process was"
            " built for. They differ during an upgrade only.",
            unit=Unit.COUNT,
            queries=(
                Query(f"min({series('mpesa_schema_version')})", "seen"),
                Query(f"max({series('mpesa_schema_version_needed')})", "needed"),
            ),
            runbook=runbooks.MIGRATIONS,
        ),
    ),
)

PROCESSES = Row(
    "Processes and merchant files",
    (
        Panel(
            title="Merchant files that cannot be used",
            description="The last good version of such a merchant stays in use, so that changes"
            " of it have no effect. The pods' log names each file and its fault.",
            unit=Unit.COUNT,
            queries=(Query(largest("mpesa_merchant_config_errors"), "files"),),
            runbook=runbooks.CONFIG_FAILED,
        ),
        Panel(
            title="Processes whose last reading failed",
            description="Processes that did not find every merchant file usable.",
            unit=Unit.COUNT,
            queries=(
                Query(f"sum(1 - {series('mpesa_config_last_reload_successful')})", "processes"),
            ),
            runbook=runbooks.CONFIG_FAILED,
        ),
        Panel(
            title="Sets of merchant files in use",
            description="How many different sets of files the processes work with: one, but for"
            " seconds after a change.",
            unit=Unit.COUNT,
            queries=(Query(f"count(count_values('hash', {series('mpesa_config_hash')}))", "sets"),),
            runbook=runbooks.CONFIG_STALE,
        ),
        Panel(
            title="Last look at the merchant files",
            description="How long ago the slowest process looked for changes without a fault.",
            unit=Unit.SECONDS,
            width=6,
            queries=(
                Query(
                    f"time() - min({series('mpesa_config_last_look_timestamp_seconds')})",
                    "slowest process",
                ),
            ),
            runbook=runbooks.CONFIG_STALE,
        ),
        Panel(
            title="Memory",
            description="Resident memory of each process.",
            unit=Unit.BYTES,
            width=6,
            queries=(
                Query(
                    of_our_processes(series("process_resident_memory_bytes")),
                    "{{job}} {{instance}}",
                ),
            ),
            runbook=runbooks.PROCESSES,
        ),
        Panel(
            title="Processor time",
            description="Of each process; 100 % is one core. Python uses little more than one.",
            unit=Unit.SHARE,
            width=6,
            queries=(
                Query(of_our_processes(rate("process_cpu_seconds_total")), "{{job}} {{instance}}"),
            ),
            runbook=runbooks.PROCESSES,
        ),
        Panel(
            title="Open files",
            description="Of those that the process may open.",
            unit=Unit.SHARE,
            width=6,
            queries=(
                Query(
                    of_our_processes(f"{series('process_open_fds')} / {series('process_max_fds')}"),
                    "{{job}} {{instance}}",
                ),
            ),
            runbook=runbooks.PROCESSES,
        ),
    ),
)

OPERATIONS = Dashboard(
    "operations",
    "M-Pesa gateway: operations",
    "Daraja, Postgres, Redis, the processes, the merchant files and the operator.",
    (DARAJA, STORES, PROCESSES, OPERATOR),
)

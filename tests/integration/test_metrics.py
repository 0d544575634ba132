"""Counters agree with the database, and what alerts ask for is there from the start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from daraja_simulator.server import RunningSimulator
from harness.bodies import callback_body
from harness.collecting import every_case
from harness.counters import Since, snapshot
from harness.gateway import Gateway, open_gateway
from harness.receiver import Answer, Receiver
from harness.settling import SILENT, settle
from harness.waiting import wait_for
from mpesa_devkit.processes import clean_env
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.exporters.pools import PoolExporter
from mpesa_gateway.services import RESERVED_CONNECTIONS, needed_schema_version
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.usecases.resolutions import count_resolved

# The last four digits choose the outcome: see the simulator's own table.
OUTCOMES = ("0000", "1032", "0001", "2001", "1037", "0003", "2002", "4000", "5002", "4290", "8002")
WITHOUT_CALLBACK = ("4000", "5002", "4290", "8002")
# No callback comes; a person ends them.
RESOLVED, REFUNDED = "254712354042", "254712364042"


@pytest.fixture
def since(gateway: Gateway) -> Since:
    """From the moment at which the gateway was open."""
    assert gateway.url
    return Since()


def pay_in_every_way(gateway: Gateway) -> None:
    """Payments of several outcomes, each told to an endpoint that fails now and then."""
    gateway.receiver.answers = [Answer(500), Answer(200), Answer(302)]
    for number, digits in enumerate(OUTCOMES):
        gateway.initiate(f"2547{number:04d}{digits}", amount=str(10 + number))
    # One each, two for the phone that ends in 2002; none for a push that was not accepted.
    arrived = len(OUTCOMES) - len(WITHOUT_CALLBACK) + 1
    wait_for(lambda: answered(gateway) == arrived)
    gateway.work()
    gateway.pay(SILENT)
    settle(gateway, callback_body(gateway.checkout_request_id(SILENT), amount=11))
    gateway.post("/callback", b"not JSON")
    gateway.work()
    gateway.clock.advance(minutes=2)
    gateway.sweep()
    resolve(gateway, gateway.pay(RESOLVED), "--status", "COMPLETED", "--receipt", "UJQ1ABCDE9")
    resolve(gateway, gateway.pay(REFUNDED), "--status", "FAILED")
    assert count_resolved(gateway.pool) == 2
    assert count_resolved(gateway.pool) == 0


def resolve(gateway: Gateway, transaction_id: str, *how: str) -> None:
    """A person ends a payment, by the command itself: a process whose counters nobody scrapes."""
    gateway.execute(
        "UPDATE transactions SET attention = 'look', next_query_at = NULL"
        " WHERE internal_transaction_id = %s",
        transaction_id,
    )
    command = [sys.executable, "-m", "mpesa_gateway", "transactions", "resolve", transaction_id]
    audit = ["--by", "wanjiru", "--reason", "the statement of 31 January"]
    env = clean_env({"MPESA_DATABASE_URL": gateway.database_url})
    subprocess.run([*command, *audit, *how], env=env, check=True, capture_output=True, timeout=60)


def answered(gateway: Gateway) -> int:
    """How many callbacks were answered 200."""
    (row,) = gateway.rows("SELECT coalesce(sum(copies), 0) AS n FROM callbacks")
    return int(row["n"])


def counts(gateway: Gateway, query: str) -> dict[str, float]:
    """Label to number, of a query with the columns `label` and `n`; zeros are left out."""
    return {row["label"]: float(row["n"]) for row in gateway.rows(query) if row["n"]}


def test_results_are_counted_as_the_merchants_are_told(gateway: Gateway, since: Since) -> None:
    pay_in_every_way(gateway)

    causes: dict[str, float] = {}
    reasons: dict[str, float] = {}
    for row in gateway.rows(
        "SELECT internal_transaction_id AS id FROM transactions WHERE status <> 'PENDING'"
    ):
        result = gateway.transaction(str(row["id"]))["result"]
        cause, reason = result["cause"] or "none", result["reason"]
        causes[cause] = causes.get(cause, 0) + 1
        reasons[reason] = reasons.get(reason, 0) + 1
    assert causes.keys() == {"none", "customer", "merchant", "request", "safaricom", "unknown"}
    assert since.by("mpesa_transaction_results_total", "cause") == causes
    assert since.by("mpesa_transaction_results_total", "reason") == reasons


def test_counters_reconcile_with_the_database(gateway: Gateway, since: Since) -> None:
    pay_in_every_way(gateway)

    created = gateway.rows("SELECT count(*) AS n, sum(amount) AS sum FROM transactions")[0]
    ended = counts(
        gateway,
        "SELECT status AS label, count(*) AS n FROM transactions WHERE status <> 'PENDING'"
        " GROUP BY 1",
    )
    assert ended.keys() == {"COMPLETED", "FAILED"}
    expected = {**ended, "PENDING": float(created["n"])}
    assert since.by("mpesa_transactions_total", "status") == expected
    assert since.by("mpesa_transactions_amount_shillings_total", "status") == {
        "PENDING": float(created["sum"]),
        **counts(
            gateway,
            "SELECT status AS label, sum(amount) AS n FROM transactions"
            " WHERE status <> 'PENDING' GROUP BY 1",
        ),
    }
    assert since.by("mpesa_stk_push_total", "outcome") == counts(
        gateway,
        "SELECT lower(push_state) AS label, count(*) AS n FROM transactions GROUP BY 1",
    )


def test_counters_of_callbacks_reconcile_with_the_inbox(gateway: Gateway, since: Since) -> None:
    pay_in_every_way(gateway)

    expected = {
        "received": float(answered(gateway)),
        **counts(
            gateway,
            # What was held was counted so; its row says by now how its payment ended.
            "SELECT CASE WHEN state = 'QUARANTINED' THEN 'quarantined' WHEN EXISTS (SELECT FROM"
            " transaction_events e WHERE e.transaction_id = c.transaction_id"
            " AND e.kind = 'failed_unconfirmed') THEN 'unconfirmed' ELSE outcome END AS label,"
            " count(*) AS n FROM callbacks c WHERE state <> 'RECEIVED' GROUP BY 1",
        ),
    }
    assert expected["quarantined"] == 2
    assert since.by("mpesa_callbacks_total", "outcome") == expected
    assert since.of("mpesa_callback_ack_seconds_count") == answered(gateway)
    applied = gateway.rows("SELECT count(*) AS n FROM callbacks WHERE state <> 'RECEIVED'")[0]
    assert since.of("mpesa_callback_lag_seconds_count") == applied["n"]


def test_counters_of_webhooks_reconcile_with_the_attempts(gateway: Gateway, since: Since) -> None:
    pay_in_every_way(gateway)

    for attempt, condition in (("first", "attempt_number = 1"), ("retry", "attempt_number > 1")):
        expected = counts(
            gateway,
            "SELECT outcome AS label, count(*) AS n FROM webhook_attempts"
            f" WHERE {condition} GROUP BY 1",
        )
        assert expected
        found = {
            outcome: since.of("mpesa_webhook_attempts_total", outcome=outcome, attempt=attempt)
            for outcome in expected
        }
        assert found == expected
    failed = gateway.rows("SELECT count(*) AS n FROM webhook_attempts WHERE NOT success")[0]["n"]
    assert since.of("mpesa_webhook_failures_total") == failed == 2


def test_counters_of_conflicts_and_of_webhooks_given_up_reconcile(
    gateway: Gateway, since: Since
) -> None:
    gateway.receiver.default = Answer(500)
    gateway.pay(SILENT)
    checkout, path = gateway.checkout_request_id(SILENT), gateway.callback_path(SILENT)
    for body in (callback_body(checkout, code=1032), callback_body(checkout)):
        gateway.post(path, body)
        gateway.work()
    # The webhook of the conflict waits for the one before, and the endpoint gets parked.
    for _ in range(20):
        gateway.clock.advance(hours=2)
        gateway.sweep()

    conflicts = counts(gateway, "SELECT kind AS label, count(*) AS n FROM conflicts GROUP BY 1")
    assert conflicts == {"paid_after_failed": 1}
    assert since.by("mpesa_reconciliation_conflicts_total", "kind") == conflicts
    ended = counts(gateway, "SELECT state AS label, count(*) AS n FROM deliveries GROUP BY 1")
    assert ended == {"EXHAUSTED": 2}
    assert since.of("mpesa_webhook_exhausted_total") == 2


def test_first_tries_are_timed_whatever_came_of_them(gateway: Gateway, since: Since) -> None:
    gateway.receiver.default = Answer(500)
    gateway.initiate("254712344000")
    gateway.clock.advance(seconds=7)
    gateway.work()
    gateway.clock.advance(minutes=2)
    gateway.sweep()

    assert len(gateway.receiver.requests) == 2
    assert since.of("mpesa_webhook_first_attempt_lag_seconds_count") == 1
    assert since.of("mpesa_webhook_first_attempt_lag_seconds_bucket", le="5.0") == 0
    assert since.of("mpesa_webhook_first_attempt_lag_seconds_bucket", le="10.0") == 1


def test_first_tries_at_an_endpoint_that_was_failing_are_not_timed(
    gateway: Gateway, since: Since
) -> None:
    gateway.receiver.default = Answer(500)
    for number in range(2):
        gateway.initiate(f"2547{number:04d}4000")
        gateway.work()

    assert since.of("mpesa_webhook_attempts_total", attempt="first") == 2
    assert since.of("mpesa_webhook_first_attempt_lag_seconds_count") == 1


def test_throttling_is_told_apart_from_other_pushes_that_were_not_sent(
    gateway: Gateway, since: Since
) -> None:
    for digits in ("5002", "4290", "4000"):
        gateway.initiate(f"25471234{digits}")

    name = "mpesa_daraja_request_seconds_count"
    assert since.of(name, operation="push", outcome="throttled") == 2
    assert since.of(name, operation="push", outcome="not_sent") == 0
    assert since.of("mpesa_http_requests_total", route="/initiate", status="503") == 2
    assert since.of("mpesa_http_requests_total", route="/initiate", status="502") == 1
    assert since.of("mpesa_http_request_seconds_count", route="/initiate") == 3


def test_a_spent_budget_is_counted(gateway_with_a_budget: Gateway) -> None:
    since = Since()
    assert gateway_with_a_budget.initiate("254712340000").status_code == 201
    assert gateway_with_a_budget.initiate("254712350000").status_code == 503
    assert since.of("mpesa_daraja_budget_refused_total", operation="push") == 1


@pytest.fixture
def gateway_with_a_budget(
    database_url: str, redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> Iterator[Gateway]:
    with open_gateway(
        database_url, redis_url, simulator, receiver, safaricom_push_per_minute="1"
    ) as running:
        yield running


def test_an_unknown_path_does_not_become_a_label(gateway: Gateway, since: Since) -> None:
    gateway.get("/secret-0123456789")
    gateway.post("/callback/0123", b"{}")

    assert since.of("mpesa_http_requests_total", route="none", status="404") == 1
    assert since.of("mpesa_http_requests_total", route="/callback/{token}", status="404") == 1


def test_no_merchant_has_a_series_unless_asked_for(gateway: Gateway, since: Since) -> None:
    gateway.pay()
    assert since.of("mpesa_merchant_transactions_total") == 0


def test_merchants_beyond_the_cap_share_a_label(gateway_with_merchants: Gateway) -> None:
    since = Since()
    gateway_with_merchants.pay()
    name = "mpesa_merchant_transactions_total"
    assert since.of(name, merchant="default", status="PENDING") == 1

    labels = metrics.MerchantLabels()
    labels.allow(2)
    for merchant in ("cap/a", "cap/b", "cap/c", "cap/a", "cap/d"):
        labels.count(merchant, Status.COMPLETED)
    found = since.by(name, "merchant")
    assert found == {"default": 1, "cap/a": 2, "cap/b": 1, "other": 2}


@pytest.fixture
def gateway_with_merchants(
    database_url: str, redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> Iterator[Gateway]:
    with open_gateway(
        database_url, redis_url, simulator, receiver, metrics_merchant_label="true"
    ) as running:
        yield running
    metrics.MERCHANT_LABELS.allow(0)


def test_pools_are_told_when_asked(gateway: Gateway) -> None:
    registry = CollectorRegistry()
    registry.register(PoolExporter(gateway.pool, gateway.services.reserved_pool))
    with gateway.pool.connection("test"):
        text = generate_latest(registry).decode()

    size = float(gateway.services.config.db_max_conns)
    assert f'mpesa_db_pool_max_connections{{pool="work"}} {size}' in text
    reserved = float(RESERVED_CONNECTIONS)
    assert f'mpesa_db_pool_max_connections{{pool="inbox"}} {reserved}' in text
    used = [it for it in text.splitlines() if it.startswith("mpesa_db_pool_used_connections{pool")]
    assert (
        float(
            dict(line.rsplit(" ", 1) for line in used)[
                'mpesa_db_pool_used_connections{pool="work"}'
            ]
        )
        >= 1
    )


def test_the_schema_is_compared(gateway: Gateway) -> None:
    assert gateway.get("/readyz").status_code == 200
    found = {name: value for (name, _), value in snapshot().items() if "schema_version" in name}
    assert found == {
        "mpesa_schema_version": float(needed_schema_version()),
        "mpesa_schema_version_needed": float(needed_schema_version()),
    }


@every_case(
    ("name", "labels"),
    [
        ("mpesa_stk_push_total", {"outcome": "unknown"}),
        ("mpesa_callbacks_total", {"outcome": "quarantined"}),
        ("mpesa_callbacks_rejected_total", {"reason": "unavailable"}),
        ("mpesa_webhook_attempts_total", {"outcome": "failed", "attempt": "first"}),
        ("mpesa_webhook_exhausted_total", {}),
        ("mpesa_reconciliation_conflicts_total", {"kind": "paid_after_failed"}),
        ("mpesa_daraja_request_seconds_count", {"operation": "push", "outcome": "throttled"}),
        ("mpesa_daraja_request_seconds_count", {"operation": "token", "outcome": "refused"}),
        ("mpesa_http_requests_total", {"route": "/initiate", "status": "503"}),
    ],
)
def test_what_alerts_count_is_there_before_it_happens(name: str, labels: dict[str, str]) -> None:
    assert (name, tuple(sorted(labels.items()))) in snapshot()

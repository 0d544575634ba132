"""From a callback to the merchant: how late the webhook arrives, and how many a process sends."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import uvloop

from bench import data
from bench.endpoint import Endpoint
from bench.figures import Figure, Plan, at_least, at_most
from bench.load import Sample, paced, quantile
from bench.rig import Rig, Running, wait_for
from mpesa_gateway.clients.webhooks import WebhookClient
from mpesa_gateway.config import Config
from mpesa_gateway.domain.delivery import Attempt, AttemptOutcome
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.services import open_services
from mpesa_gateway.work_queue import WorkQueue

RATE = 100.0
CONNECTIONS = 32
ENDPOINTS = 100
# A worker's own number of threads.
THREADS = 10
SETTLE_S = 30.0
_GIVE_UP = (
    b"UPDATE deliveries SET state = 'GONE', next_attempt_at = NULL, finished_at = now(),"
    b" waits_for_endpoint = FALSE, lease_until = NULL WHERE state = 'PENDING'"
)


@dataclass
class Lags:
    """One run at a steady rate: the answers, and how late each webhook came."""

    acks: Sample
    lags: list[float]
    lost: int


def run_lags(
    conn: psycopg.Connection,
    api: Running,
    endpoint: Endpoint,
    payments: data.Payments,
    *,
    seconds: float,
    urls: list[str],
) -> Lags:
    """At a steady rate; every webhook of a healthy endpoint has arrived at the end."""
    tokens = payments.take(int(RATE * seconds), urls)
    found = conn.execute(
        "SELECT id, internal_transaction_id::text, webhook_url FROM transactions"
        " WHERE id = ANY(%s)",
        [[row for row, _, _ in tokens]],
    ).fetchall()
    names = {row: (name, url) for row, name, url in found}
    endpoint.arrived_at.clear()
    requests = list(data.callbacks(tokens))
    acks = uvloop.run(paced(api.port, requests, per_second=RATE, connections=CONNECTIONS))
    healthy = {row: name for row, (name, url) in names.items() if str(endpoint.port) in url}
    wait_for(
        lambda: all(name in endpoint.arrived_at for name in healthy.values()),
        timeout_s=SETTLE_S,
        what="every webhook of a healthy endpoint",
    )
    lags = [endpoint.arrived_at[name] - acks.sent_at[row] for row, name in healthy.items()]
    return Lags(acks, lags, len(requests) - len(acks.latencies))


def give_up(conn: psycopg.Connection) -> None:
    """What the black hole holds ends here, so that the next run has a worker with nothing to do."""
    # First what only waits for its turn: each would be a try of ten seconds.
    conn.execute(_GIVE_UP + b" AND lease_until IS NULL")
    question = "SELECT count(*) FROM webhook_attempts WHERE outcome = 'started'"
    wait_for(
        lambda: conn.execute(question).fetchone() == (0,),
        timeout_s=SETTLE_S,
        what="the end of every try",
    )
    conn.execute(_GIVE_UP)


def measure_lag(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """At 100 callbacks a second, one API and one worker; then with one endpoint a black hole."""
    ratios: dict[float, list[float]] = {0.5: [], 0.99: []}
    lags: dict[float, list[float]] = {0.5: [], 0.99: []}
    hole_ratios = []
    seconds = 3.0 if plan.short else 10.0
    api, worker = rig.api(), rig.worker()
    with rig.connect() as conn, Endpoint() as endpoint:
        payments = data.Payments(conn, made=50_000_000)

        def run(*, black_hole: bool = False) -> Lags:
            conn.execute("DELETE FROM failing_endpoints")
            urls = endpoint.urls(ENDPOINTS, black_hole=black_hole)
            found = run_lags(conn, api, endpoint, payments, seconds=seconds, urls=urls)
            give_up(conn)
            if found.lost:
                notes.append(f"{found.lost} callbacks at {RATE:g}/s were not answered 200")
            return found

        run()
        for number in range(1 if plan.short else 3):
            order = (False, True) if number % 2 == 0 else (True, False)
            found = {black_hole: run(black_hole=black_hole) for black_hole in order}
            plain, with_hole = found[False], found[True]
            for share, values in ratios.items():
                lag = quantile(plain.lags, share)
                lags[share].append(1000 * lag)
                values.append(lag / quantile(plain.acks.latencies, share))
            hole_ratios.append(quantile(with_hole.lags, 0.99) / quantile(plain.lags, 0.99))
    rig.end(api)
    rig.end(worker)
    return [
        Figure("callback → webhook at 100/s: p50 ÷ ack p50", ratios[0.5], at_most(5)),
        Figure("callback → webhook at 100/s: p99 ÷ ack p99", ratios[0.99], at_most(5)),
        Figure("callback → webhook at 100/s: p50", lags[0.5], at_most(10), unit="ms"),
        Figure("callback → webhook at 100/s: p99", lags[0.99], unit="ms"),
        Figure("black hole beside 99 endpoints: healthy p99 ÷ without", hole_ratios, at_most(1.1)),
    ]


def measure_deliveries(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """A worker with a backlog, against the same transactions without the HTTP between them."""
    del notes
    count = 200 if plan.short else 1500
    ratios, rates, alone = [], [], []
    with rig.connect() as conn, Endpoint() as endpoint:
        payments, urls = data.Payments(conn, made=60_000_000), endpoint.urls(ENDPOINTS)
        worker = rig.worker()
        for _ in range(1 if plan.short else 3):
            alone.append(_transactions_alone(rig, make_deliveries(conn, payments, count, urls)))
            rates.append(_delivered(rig, conn, make_deliveries(conn, payments, count, urls)))
            ratios.append(rates[-1] / alone[-1])
        rig.end(worker)
    return [
        Figure("deliveries/s ÷ their transactions alone", ratios, at_least(0.2, 0.35)),
        Figure("deliveries of one process", rates, unit="1/s"),
        Figure("their transactions alone", alone, unit="1/s"),
    ]


def make_deliveries(
    conn: psycopg.Connection, payments: data.Payments, count: int, urls: list[str]
) -> list[int]:
    """Deliveries that wait, of payments that failed; far enough off that no sweeper takes them."""
    rows = [row for row, _, _ in payments.take(count, urls)]
    conn.execute(
        "UPDATE transactions SET status = 'FAILED', failure_reason = 'cancelled', result_code ="
        " '1032', settled_by = 'callback', finished_at = now(), next_query_at = NULL"
        " WHERE id = ANY(%s)",
        [rows],
    )
    cursor = conn.execute(
        "INSERT INTO deliveries (webhook_id, transaction_id, merchant, type, url, origin, body,"
        " next_attempt_at, created_at)"
        " SELECT 'msg_' || id, id, merchant, 'transaction.failed', webhook_url,"
        " rtrim(webhook_url, '/webhooks'), convert_to(format('{\"transaction_id\": \"%%s\"}',"
        " internal_transaction_id), 'utf8'), now() + interval '1 hour', now()"
        " FROM transactions WHERE id = ANY(%s) RETURNING id",
        [rows],
    )
    return [row for (row,) in cursor]


def make_due(conn: psycopg.Connection, ids: list[int]) -> None:
    """From now on a sweeper takes them."""
    conn.execute("UPDATE deliveries SET next_attempt_at = now() WHERE id = ANY(%s)", [ids])


def _delivered(rig: Rig, conn: psycopg.Connection, ids: list[int]) -> float:
    """Deliveries a second of a worker that was told of all of them at once."""
    make_due(conn, ids)
    WorkQueue(rig.redis.url()).push([Work(WorkKind.DELIVERY, it) for it in ids])
    started = datetime.now(UTC)
    question = "SELECT count(*), max(finished_at) FROM deliveries WHERE id = ANY(%s) AND state = %s"
    ended: datetime | None = None

    def all_delivered() -> bool:
        nonlocal ended
        row = conn.execute(question, [ids, "DELIVERED"]).fetchone()
        assert row is not None
        ended = row[1]
        return bool(row[0] == len(ids))

    wait_for(all_delivered, timeout_s=120, what="every delivery")
    assert ended is not None
    return len(ids) / ((ended - started) / timedelta(seconds=1))


class Instant(WebhookClient):
    """Every endpoint has answered before it was asked."""

    def __init__(self) -> None:
        """Without a session."""

    def post(self, url: str, body: bytes, headers: dict[str, str], now: datetime) -> Attempt:
        """200 at once."""
        del url, body, headers, now
        return Attempt(AttemptOutcome.DELIVERED, 200, response_time_ms=0)


def _transactions_alone(rig: Rig, ids: list[int]) -> float:
    """The product's own claim and result, with nothing between them, in as many threads."""
    with open_services(Config.from_env(rig.gateway_env({}))) as services, rig.connect() as conn:
        deliveries = replace(services.deliveries, webhooks=Instant())
        make_due(conn, ids)
        started = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(_until_tried(deliveries.attempt), ids))
        return len(ids) / (time.perf_counter() - started)


def _until_tried(attempt: Callable[[int], list[Work]]) -> Callable[[int], None]:
    """What the gate turned away comes back as work, as in a worker."""

    def run(delivery_id: int) -> None:
        waiting = [delivery_id]
        while waiting:
            waiting += [work.id for work in attempt(waiting.pop())]

    return run

"""What a callback and a whole payment cost beside a long history: rate, WAL, room, retention."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import uvloop

from bench import data
from bench.endpoint import Endpoint
from bench.figures import Figure, Goal, at_least, at_most
from bench.load import paced, quantile
from bench.scale_build import FRESH, FULL, TABLES, Built, Say, ScaleRig
from bench.webhooks import ENDPOINTS, Instant
from mpesa_gateway.config import Config
from mpesa_gateway.domain.ids import find_callback_token
from mpesa_gateway.domain.work import WorkKind
from mpesa_gateway.services import Services, open_services
from mpesa_gateway.store import inbox
from mpesa_gateway.store.inbox import NewCallback
from mpesa_gateway.store.pool import Connection, Pool

BATCH = 16
CALLBACKS = 4_000
PAYMENTS = 400
RATE = 100.0
LOAD_S = 10.0
CONNECTIONS = 32
# One batch of each kind in a second is the most that the whole cluster does.
RETAINING = {"retain_callback_bodies": "24h", "retain_attempts": "24h"}


@contextmanager
def _without_autovacuum(rig: ScaleRig) -> Iterator[None]:
    """Its own log would be counted: the log is of the whole server."""
    with rig.connect_to(FULL) as conn:
        conn.execute("ALTER SYSTEM SET autovacuum = off")
        conn.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            conn.execute("ALTER SYSTEM RESET autovacuum")
            conn.execute("SELECT pg_reload_conf()")


def _unused_number() -> int:
    """Of twelve digits: a directory may be measured again and again."""
    return int(time.time()) % 1_000_000 * 1_000_000


def _lsn(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row is not None
    return int(row[0])


def measure_writes(rig: ScaleRig, rounds: int, size: str, say: Say) -> list[Figure]:
    """Callbacks kept, then applied and their webhooks sent; each sample begins at a checkpoint."""
    kept: dict[str, list[tuple[float, float]]] = {FULL: [], FRESH: []}
    done: dict[str, list[tuple[float, float]]] = {FULL: [], FRESH: []}
    minted = {FULL: _unused_number(), FRESH: _unused_number()}
    with _without_autovacuum(rig):
        for number in range(rounds):
            for name in (FULL, FRESH) if number % 2 else (FRESH, FULL):
                rig.database = name
                config = Config.from_env(rig.gateway_env({}))
                with open_services(config) as services, rig.connect_to(name) as conn:
                    payments = data.Payments(conn, made=minted[name])
                    kept[name].append(_keep(conn, services.reserved_pool, payments, CALLBACKS))
                    done[name].append(_finish(conn, services, payments, PAYMENTS))
                    minted[name] = payments.made
            say(f"  writes: round {number + 1} of {rounds}")
    return [
        *_compare("callbacks/s", kept, 0, size, at_least(0.5), unit=""),
        *_compare("WAL per callback", kept, 1, size, at_most(1.2, 1.1), unit="bytes"),
        *_compare(
            "payments applied and told, 1/s, one thread", done, 0, size, at_least(0.5), unit=""
        ),
        *_compare("WAL per payment applied and told", done, 1, size, None, unit="bytes"),
    ]


def _compare(
    name: str,
    found: dict[str, list[tuple[float, float]]],
    which: int,
    size: str,
    goal: Goal | None,
    *,
    unit: str,
) -> list[Figure]:
    full, fresh = ([it[which] for it in found[database]] for database in (FULL, FRESH))
    ratios = [a / b for a, b in zip(full, fresh, strict=True)]
    return [
        Figure(f"{name}: {size} ÷ none", ratios, goal),
        Figure(f"{name}, beside {size}", full, unit=unit),
        Figure(f"{name}, beside none", fresh, unit=unit),
    ]


def _keep(
    conn: psycopg.Connection, pool: Pool, payments: data.Payments, count: int
) -> tuple[float, float]:
    """Rows a second and WAL bytes a row of the inbox's own statement, a batch a commit."""
    tokens = payments.take(count)
    now = datetime.now(UTC)
    batch = [_callback(token, number, now) for _, token, number in tokens]
    conn.execute("CHECKPOINT")
    before, started = _lsn(conn), time.perf_counter()
    with pool.connection("bench") as ours:
        for first in range(0, count, BATCH):
            inbox.keep(ours, batch[first : first + BATCH])
    elapsed_s = time.perf_counter() - started
    wal = (_lsn(conn) - before) / count
    # They are not what the sweep is to find.
    conn.execute(
        "UPDATE callbacks SET state = 'APPLIED', outcome = 'completed', applied_at = now()"
        " WHERE transaction_id = ANY(%s) AND by_token",
        [[row for row, _, _ in tokens]],
    )
    return count / elapsed_s, wal


def _callback(text: str, number: int, now: datetime) -> NewCallback:
    body = data.body_of(number)
    token = find_callback_token(text)
    return NewCallback(token, body, hashlib.sha256(body).digest(), {}, data.SAFARICOM, now)


def _finish(
    conn: psycopg.Connection, services: Services, payments: data.Payments, count: int
) -> tuple[float, float]:
    """The use cases of a worker, with an endpoint that has answered before it was asked."""
    deliveries = replace(services.deliveries, webhooks=Instant())
    tokens = payments.take(count)
    now = datetime.now(UTC)
    with services.pool.connection("bench") as ours:
        kept = inbox.keep(ours, [_callback(token, number, now) for _, token, number in tokens])
    conn.execute("CHECKPOINT")
    before, started = _lsn(conn), time.perf_counter()
    for callback in kept.new:
        for work in services.callbacks.apply(callback).work:
            if work.kind is WorkKind.DELIVERY:
                deliveries.attempt(work.id)
    elapsed_s = time.perf_counter() - started
    return count / elapsed_s, (_lsn(conn) - before) / count


def measure_retention(rig: ScaleRig, rounds: int, notes: list[str], say: Say) -> list[Figure]:
    """The answers at 100 callbacks a second beside a worker that retains, and one that does not."""
    rig.database = FULL
    api = rig.api()
    p50, p99, removed = [], [], []
    with rig.connect_to(FULL) as conn, Endpoint() as endpoint:
        payments = data.Payments(conn, made=_unused_number())

        def beside(settings: dict[str, str]) -> tuple[list[float], float]:
            conn.execute("DELETE FROM retention_passes")
            worker = rig.worker(sweep_interval="1s", **settings)
            requests = list(
                data.callbacks(payments.take(int(RATE * LOAD_S), endpoint.urls(ENDPOINTS)))
            )
            sample = uvloop.run(paced(api.port, requests, per_second=RATE, connections=CONNECTIONS))
            gone = _removed(conn)
            rig.end(worker)
            if sample.errors:
                notes.append(f"beside retention: answers {dict(sample.statuses)}")
            return sample.latencies, gone

        beside({})
        for number in range(rounds):
            first = beside(RETAINING if number % 2 else {})
            second = beside({} if number % 2 else RETAINING)
            (with_it, gone), (without, _) = (first, second) if number % 2 else (second, first)
            p50.append(quantile(with_it, 0.5) / quantile(without, 0.5))
            p99.append(quantile(with_it, 0.99) / quantile(without, 0.99))
            removed.append(gone / LOAD_S)
            say(f"  retention: round {number + 1} of {rounds}")
    rig.end(api)
    return [
        Figure("beside retention at 100/s: ack p50 ÷ without", p50),
        Figure("beside retention at 100/s: ack p99 ÷ without", p99),
        Figure("retention: rows gone, 1/s", removed),
    ]


def _removed(conn: psycopg.Connection) -> float:
    row = conn.execute("SELECT coalesce(sum(removed), 0) FROM retention_passes").fetchone()
    assert row is not None
    return float(row[0])


def measure_sizes(rig: ScaleRig, built: Built) -> list[Figure]:
    """Megabytes (10^6 bytes) per million payments, as they lie there after all of it."""
    million = built.rows / 1e6
    figures = []
    with rig.connect_to(FULL) as conn:
        for table in TABLES:
            row = conn.execute(
                # A table with partitions has no room of its own; one without is in no tree.
                "SELECT sum(pg_table_size(relid)), sum(pg_indexes_size(relid))"
                "  FROM (SELECT relid FROM pg_partition_tree(%(table)s::regclass)"
                "        UNION SELECT %(table)s::regclass) AS parts",
                {"table": table},
            ).fetchone()
            assert row is not None
            megabytes = [float(size) / 1e6 / million for size in row]
            figures += [
                Figure(f"room per million payments, {table}: rows", [megabytes[0]], unit="MB"),
                Figure(f"room per million payments, {table}: indexes", [megabytes[1]], unit="MB"),
            ]
    total = sum(it.values[0] for it in figures)
    return [*figures, Figure("room per million payments", [total], unit="MB")]


def vacuums(conn: Connection) -> list[str]:
    """What autovacuum has left, for a note."""
    rows = conn.execute(
        "SELECT relname, n_dead_tup, autovacuum_count FROM pg_stat_user_tables"
        " WHERE relname = ANY(%s) ORDER BY relname",
        [list(TABLES)],
    )
    return [f"{name}: {dead:,} dead rows, {times} autovacuums" for name, dead, times in rows]

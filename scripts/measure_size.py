#!/usr/bin/env python
"""Measures how much room payments take in Postgres: table by table, and what retention gives back.

`.venv/bin/python scripts/measure_size.py 100000` writes 100,000 completed payments through the real
schema into an embedded Postgres, each with three events, one callback, one webhook and one try, and
prints sizes per million. Then it lets the worker's own retention remove what it may.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness.history import write_history
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import configure_logging
from mpesa_gateway.usecases.retention import Retention

MILLION = 1_000_000
CHUNK = 10_000
TABLES = ("transactions", "transaction_events", "callbacks", "deliveries", "webhook_attempts")
NINETY_DAYS = timedelta(days=90)
WRITTEN_AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def sizes(url: str) -> dict[str, tuple[int, int]]:
    """Bytes of each table with TOAST, and of its indexes."""
    with psycopg.connect(url, autocommit=True) as conn:
        found = {}
        for table in TABLES:
            row = conn.execute(
                # A table with partitions has no room of its own.
                "SELECT sum(pg_table_size(relid)), sum(pg_indexes_size(relid))"
                "  FROM pg_partition_tree(%s::regclass)",
                [table],
            ).fetchone()
            assert row is not None
            found[table] = (int(row[0]), int(row[1]))
    return found


def show(title: str, found: dict[str, tuple[int, int]], count: int) -> None:
    """A Markdown table, in megabytes per million payments."""
    print(f"\n{title}\n\n| table | rows, MB | indexes, MB | together, MB |\n|---|---|---|---|")
    whole = [0.0, 0.0]
    for table, parts in found.items():
        rows, indexes = (it / count * MILLION / 1e6 for it in parts)
        whole = [whole[0] + rows, whole[1] + indexes]
        print(f"| `{table}` | {rows:,.0f} | {indexes:,.0f} | {rows + indexes:,.0f} |")
    print(f"| together | {whole[0]:,.0f} | {whole[1]:,.0f} | {sum(whole):,.0f} |")


def show_bodies(url: str) -> None:
    """How long the written bodies are."""
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(
            "SELECT (SELECT avg(octet_length(body)) FROM callbacks),"
            " (SELECT avg(octet_length(body)) FROM deliveries)"
        ).fetchone()
    assert row is not None
    print(f"\nA callback's body has {row[0]:.0f} bytes, a webhook's {row[1]:.0f}.")


def retain(url: str) -> None:
    """What the worker does, without its pauses."""
    pool = Pool(url, size=2, name="measure")
    pool.open()
    started, moments = time.monotonic(), [WRITTEN_AT + NINETY_DAYS + timedelta(days=1)]
    retention = Retention(pool, lambda: moments[-1], NINETY_DAYS, NINETY_DAYS)
    removed, longest_s = 0, 0.0
    while True:
        began = time.monotonic()
        gone = retention.run()
        longest_s = max(longest_s, time.monotonic() - began)
        if not gone:
            break
        removed += gone
        moments.append(moments[-1] + timedelta(seconds=2))
    pool.close()
    print(
        f"\nRetention took {removed:,} rows in {time.monotonic() - started:.1f} s; the longest"
        f" round (one batch of each kind) took {longest_s * 1000:.0f} ms."
    )


def main() -> None:
    """Pay COUNT times, and print bytes per payment."""
    configure_logging("console", "warning")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="mpesa-size-") as directory:
        server = EmbeddedPostgres(Path(directory), durable=False)
        server.start()
        try:
            url = server.create_database("size")
            apply_migrations(url, load_migrations(migrations_directory()), lambda _: None)
            for number, first in enumerate(range(1, count + 1, CHUNK)):
                at = WRITTEN_AT + timedelta(seconds=number)
                write_history(url, min(CHUNK, count + 1 - first), first=first, at=at.isoformat())
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("VACUUM ANALYZE")
            show(f"{count:,} payments, per million:", sizes(url), count)
            show_bodies(url)
            retain(url)
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("VACUUM FULL")
            show("After retention of both, compacted:", sizes(url), count)
        finally:
            server.stop()


if __name__ == "__main__":
    main()

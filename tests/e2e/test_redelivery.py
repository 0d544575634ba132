"""A bulk redelivery survives kill -9 of its worker: no webhook is forgotten."""

from __future__ import annotations

import os
import signal
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from harness.history import write_history
from harness.processes import Processes
from harness.receiver import Receiver
from harness.waiting import wait_for
from mpesa_gateway.cli import cli

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MANY = 1500


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(query.encode()).fetchall()


def test_a_worker_killed_in_the_middle_forgets_no_webhook(
    gateway: Processes, receiver: Receiver, database_url: str, redis_url: str
) -> None:
    """Exhausted ones and ones that were never tried; others' webhooks are left alone."""
    write_history(database_url, MANY, webhook_url=receiver.url, state="EXHAUSTED", attempts=2)
    write_history(
        database_url,
        100,
        first=100_001,
        at="2026-01-31 13:00:00+00",
        webhook_url=receiver.url,
        state="PENDING",
        attempts=0,
    )
    write_history(
        database_url,
        50,
        first=200_001,
        at="2026-01-31 14:00:00+00",
        merchant="shops/other",
        webhook_url=receiver.url,
        state="EXHAUSTED",
    )
    worker = gateway.worker(sweep_interval="100ms")
    order = CliRunner().invoke(
        cli,
        ["deliveries", "redeliver", "--merchant", "default", "--since", "2026-01-31T11:00:00Z"],
        env={"MPESA_DATABASE_URL": database_url, "MPESA_REDIS_URL": redis_url},
    )
    assert order.exit_code == 0, order.output
    wait_for(lambda: len(receiver.requests) > 20, timeout_s=60, what="the first webhooks")
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not worker.is_running(), timeout_s=10)
    seen_before = {it.webhook_id for it in receiver.requests}
    assert len(seen_before) < MANY + 100, "the worker was killed too late to prove anything"
    gateway.worker(sweep_interval="100ms")
    wait_for(
        lambda: (
            not rows(
                database_url,
                "SELECT FROM deliveries WHERE merchant = 'default' AND state <> 'DELIVERED'",
            )
        ),
        timeout_s=100,
        what="every webhook",
    )

    wanted = {
        it[0]
        for it in rows(database_url, "SELECT webhook_id FROM deliveries WHERE merchant = 'default'")
    }
    assert {it.webhook_id for it in receiver.requests} == wanted
    assert len(wanted) == MANY + 100
    others = rows(database_url, "SELECT DISTINCT state FROM deliveries WHERE merchant <> 'default'")
    assert others == [("EXHAUSTED",)]
    ((chosen, done),) = rows(
        database_url, "SELECT chosen, finished_at IS NOT NULL FROM redeliveries"
    )
    assert (chosen, done) == (MANY + 100, True)
    assert rows(
        database_url, "SELECT count(*) FROM transaction_events WHERE kind = 'redelivery'"
    ) == [(MANY + 100,)]

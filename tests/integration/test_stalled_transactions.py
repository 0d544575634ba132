"""A transaction that Postgres ends under its worker is an outage: the row is not to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from daraja_simulator.server import RunningSimulator
from harness.gateway import Gateway, open_gateway
from harness.receiver import Receiver
from harness.waiting import wait_for
from mpesa_gateway import failpoint
from mpesa_gateway.store import session
from mpesa_gateway.usecases.callbacks import POISON_AFTER

PHONE = "254712340000"
IDLE_LIMIT_MS = 200
IN_TRANSACTION = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'mpesa-gateway work' AND state = 'idle in transaction'"
)
End = Callable[[psycopg.Connection], None]


def wait_for_the_limit(_: psycopg.Connection) -> None:
    """Postgres ends it by itself, with 25P03: the worker stood still for too long."""


def terminate(conn: psycopg.Connection) -> None:
    """As an operator does, or a fail-over."""
    conn.execute(f"SELECT pg_terminate_backend(pid) FROM ({IN_TRANSACTION}) AS found".encode())


@pytest.fixture
def gateway(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Gateway]:
    """One whose limit for transactions that stand still is not fifteen seconds."""
    monkeypatch.setitem(session.SETTINGS, "idle_in_transaction_session_timeout", str(IDLE_LIMIT_MS))
    with open_gateway(database_url, redis_url, simulator, receiver) as running:
        yield running
    failpoint.arm(None)


def stand_still(database_url: str, end: End, ended: list[str]) -> Callable[[str], None]:
    """A worker that stands still before its commit until its session is no more."""

    def hook(name: str) -> None:
        if name != "callback.apply.before_commit":
            return
        with psycopg.connect(database_url, autocommit=True) as conn:
            wait_for(lambda: conn.execute(IN_TRANSACTION.encode()).fetchone(), what="to stand")
            end(conn)
            wait_for(lambda: not conn.execute(IN_TRANSACTION.encode()).fetchone(), what="its end")
        ended.append(name)

    return hook


@pytest.mark.parametrize("end", [wait_for_the_limit, terminate])
def test_a_callback_whose_transaction_is_ended_is_kept_and_applied_later(
    gateway: Gateway, end: End
) -> None:
    transaction = gateway.pay(PHONE)
    (row,) = wait_for(lambda: gateway.rows("SELECT id FROM callbacks"), what="the callback")
    ended: list[str] = []
    failpoint.arm(stand_still(gateway.database_url, end, ended))
    (work,) = wait_for(gateway.notifier.take, what="the wake-up")
    for _ in range(POISON_AFTER + 1):
        gateway.dispatcher.run(work)

    kept = gateway.rows("SELECT state, attempts FROM callbacks WHERE id = %s", row["id"])
    assert len(ended) == POISON_AFTER + 1
    assert kept == [{"state": "RECEIVED", "attempts": 0}]
    assert gateway.notifier.take() == []

    failpoint.arm(None)
    gateway.dispatcher.run(work)
    assert gateway.transaction(transaction)["status"] == "COMPLETED"

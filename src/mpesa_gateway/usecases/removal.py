"""Removes a month of payments for good, but for their keys and receipts (docs/data.md).

Safe to stop at any moment and to run again: each step looks at what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from mpesa_gateway.domain.months import Month
from mpesa_gateway.errors import RemovalRefusedError, UnavailableError
from mpesa_gateway.store import months, removal
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.store.removal import Content

Result = TypeVar("Result")

# Safaricom repeats a callback for minutes and a webhook is retried for days; an operator who
# reconciles a month does so in the next one.
YOUNGEST = timedelta(days=62)
# A table that is read for long is asked for again and again, in between everybody goes on.
PATIENCE_S, PAUSE_S = 60.0, 0.5


@dataclass(frozen=True)
class Order:
    """Which month goes, on whose word, and what of it may go although it never arrived."""

    month: Month
    by: str
    reason: str
    despite_undelivered: bool = False
    keep_tables: bool = False


@dataclass(frozen=True)
class Removed:
    """What came of it. `left` counts payments that are open, up to a batch."""

    payments: int
    left: int


def find_obstacles(content: Content, now: datetime, *, despite_undelivered: bool) -> list[str]:
    """Return a sentence for everything in the month that somebody may still need."""
    found: list[str] = []
    if content.newest_at is not None and content.newest_at > now - YOUNGEST:
        found.append(f"its newest payment is younger than {YOUNGEST.days} days")
    if content.has_newest_payment or content.has_newest_callback:
        found.append("it holds the newest payment or callback, by which a restore is noticed")
    open_rows = {
        "payments are pending": content.pending,
        "webhooks are pending": content.webhooks_pending,
        "webhooks were given up (--despite-undelivered)": (
            0 if despite_undelivered else content.webhooks_undelivered
        ),
        "callbacks are not applied or in quarantine": content.callbacks_open,
        "conflicts are open": content.conflicts_open,
    }
    return found + [f"{count} {what}" for what, count in open_rows.items() if count]


def remove_month(
    pool: Pool, order: Order, clock: Callable[[], datetime], report: Callable[[str], None]
) -> Removed:
    """Remove the month, or go on with it. Raises RemovalRefusedError, UnavailableError."""
    _begin(pool, order, clock())
    for table in months.TABLES:
        # Two transactions, because they lock two tables that payments lock in another order.
        _patiently(pool, report, partial(_detach, table=table, month=order.month))
        _patiently(pool, report, partial(removal.free, table=table, month=order.month))
    _remove_rows(pool, order, report)
    with pool.connection("removal.left") as conn:
        left = removal.count_left(conn, order.month)
    if not left:
        for table in () if order.keep_tables else months.TABLES:
            _patiently(pool, report, partial(removal.drop, table=table, month=order.month))
        with pool.transaction("removal.finish") as conn:
            removal.finish(conn, order.month, clock())
    with pool.connection("removal.find") as conn:
        stored = removal.find(conn, order.month)
    assert stored is not None, order
    return Removed(payments=stored.payments, left=left)


def _begin(pool: Pool, order: Order, now: datetime) -> None:
    with pool.transaction("removal.begin") as conn:
        if removal.find(conn, order.month) is None:
            content = removal.read_content(conn, order.month)
            if content.newest_at is None:
                raise RemovalRefusedError(f"{order.month.label} holds no payments")
            found = find_obstacles(content, now, despite_undelivered=order.despite_undelivered)
            if found:
                raise RemovalRefusedError(
                    f"{order.month.label} cannot be removed: {'; '.join(found)}"
                )
        removal.begin(conn, order.month, by=order.by, reason=order.reason, now=now)


def _detach(conn: Connection, table: months.Table, month: Month) -> None:
    name = months.partition_name(table, month)
    if name in {it.name for it in months.list_partitions(conn)}:
        removal.detach(conn, table, month)


def _remove_rows(pool: Pool, order: Order, report: Callable[[str], None]) -> None:
    after, total = 0, 0

    def batch(conn: Connection) -> tuple[int, int]:
        return removal.remove_batch(
            conn, order.month, after=after, despite=order.despite_undelivered
        )

    while True:
        last, count = _patiently(pool, report, batch)
        if last == after:
            return
        after, total = last, total + count
        report(f"{total} payments removed")


def _patiently(
    pool: Pool, report: Callable[[str], None], do: Callable[[Connection], Result]
) -> Result:
    """Do it in a transaction of its own, again and again while somebody is in the way."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            with pool.transaction("removal.step") as conn:
                return do(conn)
        except UnavailableError as error:
            if time.monotonic() >= give_up:
                raise
            report(f"{error}; trying again")
        time.sleep(PAUSE_S)

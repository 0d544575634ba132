"""How old the oldest waiting work is and how much there is of it, and who may export it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg.rows import TupleRow

from mpesa_gateway.store.deliveries import IN_TURN
from mpesa_gateway.store.pool import Connection

# An exact figure beyond it helps nobody, and costs a scan every few seconds.
COUNT_LIMIT = 100_000


def elect(conn: Connection, name: str, holder: str, *, until: datetime, now: datetime) -> bool:
    """Whether `holder` has this duty until then."""
    cursor = conn.execute(
        """
        INSERT INTO elections (name, holder, until)
        VALUES (%(name)s, %(holder)s, %(until)s)
            ON CONFLICT (name) DO UPDATE
           SET holder = excluded.holder, until = excluded.until
         WHERE elections.holder = excluded.holder OR elections.until <= %(now)s
        """,
        {"name": name, "holder": holder, "until": until, "now": now},
    )
    return cursor.rowcount == 1


def _age_s(since: datetime | None, now: datetime) -> float:
    return max((now - since) / timedelta(seconds=1), 0.0) if since is not None else 0.0


def measure(conn: Connection, now: datetime) -> dict[str, float]:
    """The value of each metric in `metrics.AGES`; 0 where nothing waits.

    A webhook that waits for an earlier one of its transaction is not due.
    """
    oldest_callback, oldest_delivery, parked, oldest_pending = _row(
        conn,
        f"""
        SELECT (SELECT min(received_at) FROM callbacks WHERE state = 'RECEIVED'),
               (SELECT next_attempt_at FROM deliveries d
                 WHERE state = 'PENDING' AND {IN_TURN}
                 ORDER BY next_attempt_at LIMIT 1),
               (SELECT count(*) FROM failing_endpoints WHERE parked_until > %(now)s),
               (SELECT min(created_at) FROM transactions WHERE status = 'PENDING')
        """,  # noqa: S608 - a constant
        {"now": now},
    )
    return {
        "mpesa_callback_oldest_unprocessed_age_seconds": _age_s(oldest_callback, now),
        "mpesa_webhook_oldest_due_age_seconds": _age_s(oldest_delivery, now),
        "mpesa_webhook_parked_endpoints": float(parked),
        "mpesa_transaction_pending_oldest_age_seconds": _age_s(oldest_pending, now),
        **_count(conn, now),
    }


def _count(conn: Connection, now: datetime) -> dict[str, float]:
    """How much waits. Each count reads a partial index, and stops at the limit."""
    counts = _row(
        conn,
        f"""
        SELECT (SELECT count(*) FROM (
                   SELECT FROM callbacks WHERE state = 'RECEIVED' LIMIT %(limit)s) unprocessed),
               (SELECT count(*) FROM (
                   SELECT FROM callbacks WHERE state = 'QUARANTINED' LIMIT %(limit)s) quarantined),
               (SELECT count(*) FROM (
                   SELECT FROM deliveries d
                    WHERE state = 'PENDING' AND next_attempt_at <= %(now)s AND {IN_TURN}
                    LIMIT %(limit)s) due),
               (SELECT count(*) FROM (
                   SELECT FROM transactions WHERE status = 'PENDING' LIMIT %(limit)s) pending),
               (SELECT count(*) FROM (
                   SELECT FROM transactions
                    WHERE status = 'PENDING' AND attention IS NOT NULL
                    LIMIT %(limit)s) attention),
               (SELECT count(*) FROM (
                   SELECT FROM conflicts WHERE closed_at IS NULL LIMIT %(limit)s) conflicts)
        """,  # noqa: S608 - a constant
        {"limit": COUNT_LIMIT, "now": now},
    )
    names = (
        "mpesa_callbacks_unprocessed",
        "mpesa_callbacks_quarantined",
        "mpesa_webhooks_due",
        "mpesa_transactions_pending",
        "mpesa_transactions_attention",
        "mpesa_conflicts_open",
    )
    return dict(zip(names, map(float, counts), strict=True))


def _row(conn: Connection, query: LiteralString, values: dict[str, Any]) -> TupleRow:
    row = conn.execute(query, values).fetchone()
    assert row is not None
    return row

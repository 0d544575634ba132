"""How old the oldest waiting work is, and who may export it."""

from __future__ import annotations

from datetime import datetime, timedelta

from mpesa_gateway.store.pool import Connection


def elect(conn: Connection, name: str, holder: str, *, until: datetime, now: datetime) -> bool:
    """Whether `holder` has this duty until then."""
    cursor = conn.execute(
        "INSERT INTO elections (name, holder, until) VALUES (%s, %s, %s)"
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until"
        " WHERE elections.holder = excluded.holder OR elections.until <= %s",
        [name, holder, until, now],
    )
    return cursor.rowcount == 1


def _age_s(since: datetime | None, now: datetime) -> float:
    return max((now - since) / timedelta(seconds=1), 0.0) if since is not None else 0.0


def measure(conn: Connection, now: datetime) -> dict[str, float]:
    """The value of each metric in `metrics.AGES`; 0 where nothing waits."""
    row = conn.execute(
        "SELECT (SELECT min(received_at) FROM callbacks WHERE state = 'RECEIVED'),"
        " (SELECT min(next_attempt_at) FROM deliveries WHERE state = 'PENDING'),"
        " (SELECT count(*) FROM failing_endpoints WHERE parked_until > %s),"
        " (SELECT min(created_at) FROM transactions WHERE status = 'PENDING')",
        [now],
    ).fetchone()
    assert row is not None
    return {
        "mpesa_callback_oldest_unprocessed_age_seconds": _age_s(row[0], now),
        "mpesa_webhook_oldest_due_age_seconds": _age_s(row[1], now),
        "mpesa_webhook_parked_endpoints": float(row[2]),
        "mpesa_transaction_pending_oldest_age_seconds": _age_s(row[3], now),
    }

"""The state of the whole gateway at one moment, for a person on call."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from mpesa_gateway.domain.amount import amount_text
from mpesa_gateway.domain.representation import time_text
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.store import stats
from mpesa_gateway.store.pool import Pool

WINDOW = timedelta(hours=1)


def read_stats(pool: Pool, now: datetime) -> dict[str, Any]:
    """Counts and ages as JSON. Raises UnavailableError."""
    with pool.connection("read.stats") as conn:
        counts = {it.status: it for it in stats.count_created_since(conn, now - WINDOW)}
        backlog = stats.measure(conn, now)
    return {
        "at": time_text(now),
        "last_hour": {
            status.value: {
                "count": counts[status].count if status in counts else 0,
                "amount": amount_text(counts[status].amount) if status in counts else "0",
            }
            for status in Status
        },
        "transactions": {
            "pending": backlog.pending,
            "pending_oldest_s": _age_s(backlog.pending_oldest, now),
            "attention": backlog.attention,
            "open_conflicts": backlog.conflicts,
        },
        "callbacks": {
            "waiting": backlog.callbacks_waiting,
            "waiting_oldest_s": _age_s(backlog.callbacks_oldest, now),
            "quarantined": backlog.quarantined,
        },
        "deliveries": {
            "due": backlog.deliveries_due,
            "due_oldest_s": _age_s(backlog.deliveries_oldest_due, now),
            "retrying": backlog.deliveries_retrying,
            "parked": backlog.deliveries_parked,
            "exhausted": backlog.deliveries_exhausted,
            "gone": backlog.deliveries_gone,
            "endpoints_parked": backlog.endpoints_parked,
        },
    }


def _age_s(since: datetime | None, now: datetime) -> float | None:
    """Whole seconds and tenths; None where nothing waits."""
    if since is None:
        return None
    return max(round((now - since).total_seconds(), 1), 0.0)

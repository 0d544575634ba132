"""What a pod says of its merchants: `GET /merchants` on the metrics port, read by the operator.

No secret is in it. The metrics port is inside the cluster, and nobody else needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mpesa_gateway.domain.ownership import public_name
from mpesa_gateway.merchants.directory import MerchantDirectory
from mpesa_gateway.store import endpoints
from mpesa_gateway.store.pool import Pool

VERSION = 1
FRESH_S = 60.0
# Every worker looks; more often than anybody asks would be wasted.
LOOK_EVERY_S = 5.0


class WebhookHealth:
    """Which merchants have an endpoint that is parked. A worker's sweeper refreshes it."""

    def __init__(self, pool: Pool, time_s: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._time_s = time_s
        self._failing: frozenset[str] = frozenset()
        self._looked_at = float("-inf")

    def refresh(self) -> None:
        """Look, unless it was a moment ago. Raises UnavailableError."""
        if self._time_s() - self._looked_at < LOOK_EVERY_S:
            return
        with self._pool.connection("report.parked") as conn:
            self._failing = frozenset(endpoints.list_parked_merchants(conn))
        self._looked_at = self._time_s()

    def of(self, merchant: str) -> str | None:
        """`healthy` or `failing`; None when nobody could look for a while."""
        if self._time_s() - self._looked_at > FRESH_S:
            return None
        return "failing" if merchant in self._failing else "healthy"


def report(
    merchants: MerchantDirectory, webhooks: Callable[[str], str | None] = lambda _: None
) -> dict[str, Any]:
    """The version of each merchant's file that this process works with."""
    snapshot = merchants.current()
    ledgers = {public_name(ledger): ledger for ledger in snapshot.by_name}
    return {
        "version": VERSION,
        "sha256": snapshot.sha256,
        "merchants": {
            name: {"digest": digest, "webhooks": webhooks(ledgers.get(name, name))}
            for name, digest in snapshot.digests.items()
        },
        "errors": dict(snapshot.errors),
    }

"""Published merchants whose MerchantConfig vanished without a drain.

Our finalizer was taken off by force, the CRD was deleted, or etcd came back from an older snapshot:
one merchant, or all of them at once. Each drains first, and a gauge tells how many do.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from mpesa_gateway.telemetry.log import get_logger
from mpesa_operator import metrics
from mpesa_operator.merchant_file import read_entry, with_flags
from mpesa_operator.publication import Publication

LOGGER = get_logger(__name__)
RETRY = timedelta(seconds=5)


class Orphans:
    """Since when each of them is known. A new process begins again: the drain only grows longer."""

    def __init__(self, publication: Publication, drain: timedelta) -> None:
        self._publication = publication
        self._drain = drain
        self._since: dict[str, datetime] = {}

    async def drain(self, key: str, file: str, content: bytes, now: datetime) -> timedelta | None:
        """Drain the merchant, or remove its file; returns when to look again."""
        left = self._since.setdefault(key, now) + self._drain - now
        self._measure()
        drains = left > timedelta(0) and read_entry(content) is not None
        entry = with_flags(content, draining=True) if drains else None
        if entry != content:
            LOGGER.warning(
                "the MerchantConfig of a published merchant is gone",
                merchant=key,
                drain_s=max(0, round(left.total_seconds())),
            )
            if await self._publication.publish(file, entry) is not None:
                return RETRY
        if entry is not None:
            return left
        self.discard(key)
        return None

    def discard(self, key: str) -> None:
        """Forget the merchant: it is gone, or its object is back."""
        self._since.pop(key, None)
        self._measure()

    def _measure(self) -> None:
        metrics.orphaned_merchants.set(len(self._since))

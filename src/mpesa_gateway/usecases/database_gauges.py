"""Exports how durable the database is, and says so once when it is not."""

from __future__ import annotations

import time

from mpesa_gateway.domain.durability import Expected, concerns
from mpesa_gateway.store.durability import read_durability
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

REFRESH_S = 60.0


class DurabilityGauge:
    """`mpesa_database_durability`: 1 when it is what somebody decided, 0 when it is weaker."""

    def __init__(self, expected: Expected | None, *, production: bool) -> None:
        self._expected = expected
        self._production = production
        self._said: list[str] = []
        self._read_s = float("-inf")

    def refresh(self, conn: Connection) -> None:
        """Read it, unless that was a moment ago."""
        if time.monotonic() - self._read_s < REFRESH_S:
            return
        durability = read_durability(conn)
        found = concerns(durability, self._expected, production=self._production)
        metrics.database_durability.clear()
        metrics.database_durability.labels(durability.level.value).set(0 if found else 1)
        if found != self._said:
            for sentence in found:
                LOGGER.warning("the database is not as durable as it could be", why=sentence)
        self._said, self._read_s = found, time.monotonic()

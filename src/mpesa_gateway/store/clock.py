"""Postgres's time, which all processes share (docs/decisions/0025).

The clocks of two machines may differ by minutes. Claims, schedules and signatures of webhooks are
compared by several processes, so each process tells Postgres's time: it reads it every few seconds
and counts on by a clock of its own that nobody sets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

ACQUIRE_TIMEOUT_S = 1.0
# A reading that took longer tells the time too vaguely.
LONGEST_READING_S = 0.5
# Less than this is the uncertainty of a reading: the time would jump to and fro.
JITTER_S = 0.25
# Of this machine's clock against Postgres's; beyond it somebody should repair one of them.
NOTABLE_SKEW_S = 2.0


class DatabaseClock:
    """Call it for the time. Until the first reading it tells the local time."""

    def __init__(self, pool: Pool, local: Callable[[], datetime]) -> None:
        self._pool = pool
        self._local = local
        # Postgres's time, and the steady clock at that moment.
        self._base: tuple[datetime, float] | None = None
        self._lock = threading.Lock()
        self._is_notable = False

    def __call__(self) -> datetime:
        """Return Postgres's time now, aware, in UTC."""
        base = self._base
        if base is None:
            return self._local()
        moment, steady_s = base
        return moment + timedelta(seconds=_steady_s() - steady_s)

    def timestamp(self) -> float:
        """Return the same in seconds since 1970."""
        return self().timestamp()

    def measure(self) -> None:
        """Read Postgres's clock. Raises UnavailableError; the time goes on then."""
        with self._pool.connection("clock.read", ACQUIRE_TIMEOUT_S) as conn:
            began_s = _steady_s()
            moment = _read(conn)
            ended_s = _steady_s()
        if ended_s - began_s > LONGEST_READING_S:
            return
        read_s = (began_s + ended_s) / 2
        local = self._local()
        skew_s = (local - moment).total_seconds() - (_steady_s() - read_s)
        metrics.clock_skew_seconds.set(skew_s)
        self._tell(skew_s)
        with self._lock:
            self._set(moment, read_s)

    def _set(self, moment: datetime, read_s: float) -> None:
        if self._base is not None:
            told = self._base[0] + timedelta(seconds=read_s - self._base[1])
            if abs((told - moment).total_seconds()) <= JITTER_S:
                return
        self._base = (moment, read_s)

    def _tell(self, skew_s: float) -> None:
        """Once when it begins, and once when it is over."""
        is_notable = abs(skew_s) > NOTABLE_SKEW_S
        if is_notable and not self._is_notable:
            LOGGER.warning(
                "this machine's clock differs from Postgres's, which is used",
                skew_s=round(skew_s, 3),
            )
        elif self._is_notable and not is_notable:
            LOGGER.info("this machine's clock agrees with Postgres's again")
        self._is_notable = is_notable


def _read(conn: Connection) -> datetime:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def _steady_s() -> float:
    """Seconds on a clock that nobody sets; on Linux it counts a machine's sleep, too."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()

"""Watches Postgres from one process: does it take writes, and do our pools still reach it.

A read answers while a disk is full, a server is read-only, or commits wait for a standby. So each
process writes a small row again and again. And a pool that gives nobody a connection although a
fresh connection can be made is a reason to restart the process.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import heartbeats
from mpesa_gateway.store.connection_errors import can_connect
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

BEAT_S = 3.0
# Two beats and the time that one may take to fail; seen by Prometheus within its 15 s.
SILENT_S = 9.0
ACQUIRE_TIMEOUT_S = 1.0
# The same for `/livez`: no restart for what heals by itself.
STUCK_S = 60.0
FORGET_AFTER = timedelta(days=1)
FORGET_EVERY_S = 3600.0


class DatabaseWatch:
    """Beats in a thread of its own; asking what it found waits for nobody."""

    def __init__(
        self,
        url: str,
        beating: Pool,
        others: tuple[Pool, ...],
        clock: Callable[[], datetime],
        *,
        read_clock: Callable[[], None] = lambda: None,
    ) -> None:
        """`beating` is the pool that has a connection left for the beat; `others` are watched.

        `read_clock` reads Postgres's time, with each beat and before a round of the sweeper.
        """
        self._url = url
        self._pool = beating
        self._others = others
        self._clock = clock
        self.read_clock = read_clock
        self._process = f"{socket.gethostname()} {uuid.uuid4()}"
        # On the monotonic clock; None until the first beat of a process whose thread was started.
        self._beat_s: float | None = None
        self._forgot_s = float("-inf")
        self._is_stuck = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="database-watch", daemon=True)

    def start(self) -> None:
        """Begin to beat. The first reading of the clock is waited for, if it can be had."""
        with contextlib.suppress(UnavailableError):
            self.read_clock()
        self._beat_s = time.monotonic()
        metrics.database_writable.set_function(self.is_writable)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stop.set()
        self._thread.join(timeout=2)

    def is_writable(self) -> bool:
        """Whether the last write is recent, and no write was refused for lack of room since."""
        if self._beat_s is None:
            return True
        now = time.monotonic()
        refused = (pool.full_since_s for pool in (self._pool, *self._others))
        is_full = any(it is not None and now - it < SILENT_S for it in refused)
        return now - self._beat_s < SILENT_S and not is_full

    def is_stuck(self) -> bool:
        """Whether a pool has been dead for a minute, although a fresh connection can be made."""
        return self._is_stuck

    def _run(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                self.beat()
                self.look()
            except Exception:
                LOGGER.exception("Postgres could not be watched")

    def beat(self) -> None:
        """Write this process's row."""
        try:
            self.read_clock()
            now = self._clock()
            with self._pool.connection("watch.beat", ACQUIRE_TIMEOUT_S) as conn:
                heartbeats.beat(conn, self._process, now)
                self._beat_s = time.monotonic()
                if self._beat_s - self._forgot_s > FORGET_EVERY_S:
                    heartbeats.forget_before(conn, now - FORGET_AFTER)
                    self._forgot_s = self._beat_s
        except UnavailableError as error:
            LOGGER.warning("Postgres takes no writes", problem=str(error))

    def look(self) -> None:
        """Find out whether a pool is dead. One that failed once may only not be asked any more."""
        for pool in self._others:
            if pool.failing_since_s is not None:
                with (
                    contextlib.suppress(UnavailableError),
                    pool.connection("watch.look", ACQUIRE_TIMEOUT_S),
                ):
                    pass
        now = time.monotonic()
        since = (pool.failing_since_s for pool in (self._pool, *self._others))
        is_failing = any(it is not None and now - it > STUCK_S for it in since)
        self._is_stuck = is_failing and can_connect(self._url)

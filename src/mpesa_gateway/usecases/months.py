"""Makes the partitions of the coming months, and lets a new month begin."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mpesa_gateway.domain.months import Month, month_of
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import backlog, months
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

# A database that nobody can change for two months still has a partition for what comes.
AHEAD = 3
INTERVAL_S = 60.0
# Who has this duty makes the partitions; if it dies, another does at its next look.
_DUTY, _TERM = "months", timedelta(seconds=INTERVAL_S)


@dataclass
class Months:
    """Every worker looks once a minute."""

    pool: Pool
    clock: Callable[[], datetime]
    # Who has the duty: as in the table `elections`.
    holder: str = field(default_factory=lambda: f"{socket.gethostname()} {uuid.uuid4()}")
    _looked_s: float = field(default=float("-inf"), init=False)

    def refresh(self) -> None:
        """Look, unless that was a moment ago. What could not be done is done by a later look."""
        if time.monotonic() - self._looked_s < INTERVAL_S:
            return
        self._looked_s = time.monotonic()
        try:
            self.keep_up()
        except UnavailableError as error:
            LOGGER.warning("a month's partition is made later", problem=str(error))

    def keep_up(self) -> None:
        """Make what is missing, then let the month begin. Raises UnavailableError."""
        now = self.clock()
        month = month_of(now)
        if month.number == 0:
            return
        with self.pool.connection("months.elect") as conn:
            # The schema is the release before's until it was migrated.
            if not months.list_partitions(conn):
                return
            if not backlog.elect(conn, _DUTY, self.holder, until=now + _TERM, now=now):
                return
        for it in month.next(1 + AHEAD):
            self._make(it)
        with self.pool.transaction("months.begin") as conn:
            # Its row stays locked until the numbers are set: nobody else sets them meanwhile.
            if not backlog.elect(conn, _DUTY, self.holder, until=now + _TERM, now=now):
                return
            if month not in months.list_months(conn) or months.is_counting(conn, month):
                return
            months.count_from(conn, month)
        LOGGER.info("a month has begun", month=month.label)

    def _make(self, month: Month) -> None:
        for table in months.TABLES:
            with self.pool.connection("months.look") as conn:
                has = {(it.table, it.month) for it in months.list_partitions(conn)}
            if (table.name, month) in has:
                continue
            with self.pool.transaction("months.create") as conn:
                months.create(conn, table, month)
            with self.pool.transaction("months.attach") as conn:
                months.attach(conn, table, month)
            LOGGER.info("a month's partition was made", table=table.name, month=month.label)

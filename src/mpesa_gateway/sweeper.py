"""Finds work that no wake-up announced: lost messages, dead workers, retries whose time has come.

Every worker sweeps. Claims and locks in Postgres keep two sweepers from doing a thing twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from mpesa_gateway import metrics
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.log import get_logger
from mpesa_gateway.store import callbacks, deliveries, queries, redeliveries
from mpesa_gateway.store.pool import Pool

LOGGER = get_logger(__name__)

PAGE = 200
# A wake-up needs about a millisecond; what is older than this was not announced.
GRACE = timedelta(seconds=1)
# Between pages of a backlog.
PAUSE_S = 0.05
# Work that waits for somebody else, seconds if need be; all other work waits for Postgres only.
OUTBOUND = (WorkKind.DELIVERY, WorkKind.QUERY)


class Sweeper:
    """Looks for due rows every interval, and does them in a few threads of its own.

    Outbound work has a line of its own: Safaricom and endpoints that hang delay no callback.
    """

    def __init__(
        self,
        pool: Pool,
        do: Callable[[Work], None],
        *,
        clock: Callable[[], datetime],
        interval: timedelta,
        threads: int,
        after_round: Callable[[], None] = lambda: None,
        is_remembered: Callable[[Work], bool] = lambda _: False,
    ) -> None:
        self._pool = pool
        self._do = do
        self._clock = clock
        self._interval_s = interval.total_seconds()
        self._after_round = after_round
        # What this process comes back to by itself: a backlog would be offered again and again.
        self._is_remembered = is_remembered
        self._inner = ThreadPoolExecutor(threads, thread_name_prefix="sweep")
        self._outbound = ThreadPoolExecutor(threads, thread_name_prefix="sweep-out")
        self._in_hand: set[Work] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._round_at = time.monotonic()

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """End after the work in hand; what waits in line stays in Postgres."""
        self._stop.set()
        for executor in (self._inner, self._outbound):
            executor.shutdown(wait=False, cancel_futures=True)
        self.wait()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def wait(self) -> None:
        """Until all that was handed out is done. No more can be handed out afterwards."""
        for executor in (self._inner, self._outbound):
            executor.shutdown(wait=True)

    def is_alive(self) -> bool:
        """Whether rounds go on; a stuck or dead sweeper is a reason to restart the process."""
        return time.monotonic() - self._round_at < max(60.0, 10 * self._interval_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            more = False
            try:
                more = self.sweep()
                self._after_round()
            except UnavailableError as error:
                LOGGER.warning("sweep waits for Postgres", problem=str(error))
            except Exception:
                LOGGER.exception("sweep failed")
            self._round_at = time.monotonic()
            self._stop.wait(min(PAUSE_S, self._interval_s) if more else self._interval_s)

    def sweep(self) -> bool:
        """One round. True when there is more than one page of work."""
        now = self._clock()
        fresh_before = now - min(GRACE, timedelta(seconds=self._interval_s))
        with self._pool.connection("sweep.list") as conn:
            pushes = queries.list_expired_pushes(conn, now, PAGE)
            inbox = callbacks.list_due(conn, fresh_before, PAGE)
            outbox = deliveries.list_due(conn, now, fresh_before=fresh_before, limit=PAGE)
            silent = queries.list_due(conn, now, PAGE)
            orders = redeliveries.list_due(conn, now, PAGE)
        offered = [
            *(self._offer(Work(WorkKind.PUSH, row), "push") for row in pushes),
            *(self._offer(Work(WorkKind.CALLBACK, row), "callback") for row in inbox),
            *(
                self._offer(Work(WorkKind.DELIVERY, due.id), "delivery" if due.fresh else None)
                for due in outbox
            ),
            *(self._offer(Work(WorkKind.QUERY, row), None) for row in silent),
            *(self._offer(Work(WorkKind.REDELIVERY, row), None) for row in orders),
        ]
        full = max(len(pushes), len(inbox), len(outbox), len(silent)) == PAGE
        return full and any(offered)

    def _offer(self, work: Work, rescued: str | None) -> bool:
        """Hand it to a thread, unless one has it. `rescued` names work that should have started."""
        with self._lock:
            if work in self._in_hand or self._stop.is_set() or self._is_remembered(work):
                return False
            self._in_hand.add(work)
        if rescued is not None:
            metrics.sweeper_rescued_total.labels(rescued).inc()
        executor = self._outbound if work.kind in OUTBOUND else self._inner
        try:
            executor.submit(self._work, work)
        except RuntimeError:
            # Shut down between the look and the submission.
            return False
        return True

    def _work(self, work: Work) -> None:
        try:
            self._do(work)
        finally:
            with self._lock:
                self._in_hand.discard(work)

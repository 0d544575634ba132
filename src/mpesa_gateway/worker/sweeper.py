"""Finds work that no wake-up announced: lost messages, dead workers, retries whose time has come.

Every worker sweeps. Claims and locks in Postgres keep two sweepers from doing a thing twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import callbacks, deliveries, pages, redeliveries, status_queries
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)
Item = TypeVar("Item", bound=Hashable)

PAGE = 200
# A wake-up needs about a millisecond; what is older than this was not announced.
GRACE = timedelta(seconds=1)
# Between pages of a backlog.
PAUSE_S = 0.05
# How often deferred webhooks are looked at: an attempt that turns slow leaves room for another.
DEFERRED_INTERVAL_S = 0.25
# Work that Redis did not take, and that waits for a thread here. More is left to the next round.
MAX_LOST_IN_HAND = 1000


@dataclass(frozen=True)
class Webhooks:
    """How a sweeper shares webhooks with the limiter of its process.

    `threads`: more than there are slots for attempts, so that one is always free to find out that a
    merchant has no slot left. What `is_deferred`, the limiter re-queues: a sweeper that offered it
    too would go over the same backlog again and again.
    """

    threads: int
    is_deferred: Callable[[Work], bool] = lambda _: False
    next_deferred: Callable[[], list[Work]] = list


class Sweeper:
    """Looks for due rows every interval, and does them in threads of its own.

    Queries and webhooks have threads of their own: Safaricom that hangs delays no webhook, an
    endpoint that hangs delays no query, and neither delays a callback, which waits for Postgres.
    """

    def __init__(
        self,
        pool: Pool,
        do: Callable[[Work], None],
        *,
        clock: Callable[[], datetime],
        interval: timedelta,
        threads: int,
        webhooks: Webhooks | None = None,
        before_round: Callable[[], None] = lambda: None,
        after_round: Callable[[], None] = lambda: None,
    ) -> None:
        """`threads` for callbacks, and as many for queries."""
        self._pool = pool
        self._do = do
        self._clock = clock
        self._interval_s = interval.total_seconds()
        self._before_round = before_round
        self._after_round = after_round
        self._webhooks = webhooks or Webhooks(threads)
        self._inner = ThreadPoolExecutor(threads, thread_name_prefix="sweep")
        self._executors = {
            WorkKind.QUERY: ThreadPoolExecutor(threads, thread_name_prefix="sweep-query"),
            WorkKind.DELIVERY: ThreadPoolExecutor(
                self._webhooks.threads, thread_name_prefix="sweep-webhook"
            ),
        }
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
        for executor in (self._inner, *self._executors.values()):
            executor.shutdown(wait=False, cancel_futures=True)
        self.wait()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def wait(self) -> None:
        """Until all that was handed out is done. No more can be handed out afterwards."""
        for executor in (self._inner, *self._executors.values()):
            executor.shutdown(wait=True)

    def is_alive(self) -> bool:
        """Whether rounds go on; a stuck or dead sweeper is a reason to restart the process."""
        return time.monotonic() - self._round_at < max(60.0, 10 * self._interval_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            more = False
            try:
                self._before_round()
                more = self.sweep()
                self._after_round()
            except UnavailableError as error:
                LOGGER.warning("sweep waits for Postgres", problem=str(error))
            except Exception:
                LOGGER.exception("sweep failed")
            self._round_at = time.monotonic()
            self._wait(min(PAUSE_S, self._interval_s) if more else self._interval_s)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stop.wait(min(left, DEFERRED_INTERVAL_S)):
                return
            self.hand_over(self._webhooks.next_deferred())

    def sweep(self) -> bool:
        """One round. True when there is more than one page of work."""
        now = self._clock()
        fresh_before = now - min(GRACE, timedelta(seconds=self._interval_s))
        with self._pool.connection("sweep.list") as conn:
            pushes = status_queries.list_expired_pushes(conn, now, PAGE)
            inbox = callbacks.release_orphans(conn, now, PAGE)
            inbox += callbacks.list_due(conn, fresh_before, PAGE)
            outbox = deliveries.list_due(conn, now, fresh_before=fresh_before, limit=PAGE)
            silent = status_queries.list_due(conn, now, PAGE)
            orders = redeliveries.list_due(conn, now, PAGE)
            full = max(len(pushes), len(inbox), len(outbox), len(silent)) == PAGE
            if len(outbox) == PAGE:
                own = pages.list_deliveries(conn, now, fresh_before=fresh_before, limit=PAGE)
                outbox = _in_turn(own, outbox)
            if len(silent) == PAGE:
                silent = _in_turn(pages.list_queries(conn, now, PAGE), silent)
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
        return full and any(offered)

    def hand_over(self, work: list[Work]) -> None:
        """Do webhooks that have a slot reserved, as soon as a thread is free: next to at once."""
        for it in work:
            # Also where the thread that deferred it has not left it yet.
            with self._lock:
                self._in_hand.add(it)
            self._submit(it)

    def take_lost(self, work: list[Work]) -> None:
        """Do what this process announced and Redis did not take."""
        for it in work:
            if len(self._in_hand) < MAX_LOST_IN_HAND:
                self._offer(it, None)

    def _offer(self, work: Work, rescued: str | None) -> bool:
        """Hand it to a thread, unless one has it. `rescued` names work that should have started."""
        with self._lock:
            if work in self._in_hand or self._stop.is_set() or self._webhooks.is_deferred(work):
                return False
            self._in_hand.add(work)
        if rescued is not None:
            metrics.sweeper_rescued_total.labels(rescued).inc()
        return self._submit(work)

    def _submit(self, work: Work) -> bool:
        try:
            self._executors.get(work.kind, self._inner).submit(self._work, work)
        except RuntimeError:
            # Shut down since: the row stays in Postgres.
            return False
        return True

    def _work(self, work: Work) -> None:
        try:
            self._do(work)
        finally:
            with self._lock:
                self._in_hand.discard(work)


def _in_turn(of_each_merchant: list[Item], oldest: list[Item]) -> list[Item]:
    """A page with something of every merchant first, then what has waited longest."""
    return list(dict.fromkeys([*of_each_merchant, *oldest]))[:PAGE]

"""The leases of pushes under way: short, and renewed for as long as their process lives.

So a payment whose process died is taken up within seconds, and one that Safaricom keeps waiting
stays with its process (docs/decisions/0015).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import transactions
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

# From intent to SENDING there is the token. Not short: what ends here has failed, and a machine
# without CPU for some seconds must not fail payments.
INTENT_LEASE = timedelta(seconds=12)
# From SENDING to the outcome there is one push, of 15 s at most. What ends here stays pending, and
# an outcome that comes later is used.
SENDING_LEASE = timedelta(seconds=4)
# Of the lease: looked so often, and renewed from that age on. Most pushes end before.
LOOK_SHARE = 0.2
RENEW_SHARE = 0.4


class PushLeases:
    """Knows the pushes that this process has under way, and renews their leases in a thread."""

    def __init__(
        self,
        pool: Pool,
        clock: Callable[[], datetime],
        *,
        intent: timedelta = INTENT_LEASE,
        sending: timedelta = SENDING_LEASE,
    ) -> None:
        self.intent = intent
        self.sending = sending
        self._pool = pool
        self._clock = clock
        # By row: when its lease was last written, on the monotonic clock, and how many keep it: a
        # request, and who goes on saving its outcome.
        self._kept: dict[int, float] = {}
        self._keepers: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="push-leases", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more."""
        self._stop.set()
        self._thread.join(timeout=5)

    @contextmanager
    def kept(self, row: int) -> Iterator[None]:
        """Inside the block the push is under way; its lease was written just now."""
        with self._lock:
            self._kept.setdefault(row, time.monotonic())
            self._keepers[row] += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers[row] -= 1
                if not self._keepers[row]:
                    del self._keepers[row], self._kept[row]

    def renew(self, moment: float) -> int:
        """Renew the leases that are old enough; how many. Raises UnavailableError.

        `moment` is now, on the monotonic clock.
        """
        oldest = moment - RENEW_SHARE * self.sending.total_seconds()
        with self._lock:
            rows = [row for row, written in self._kept.items() if written <= oldest]
        if not rows:
            return 0
        until = self._clock() + self.sending
        with self._pool.connection("push.renew", self._look_s) as conn:
            renewed = transactions.renew_push_leases(conn, rows, until)
        with self._lock:
            self._kept.update((row, moment) for row in rows if row in self._kept)
        return renewed

    @property
    def _look_s(self) -> float:
        return LOOK_SHARE * self.sending.total_seconds()

    def _run(self) -> None:
        while not self._stop.wait(self._look_s):
            try:
                self.renew(time.monotonic())
            except UnavailableError as error:
                LOGGER.warning("leases of pushes not renewed", problem=str(error))
            except Exception:
                LOGGER.exception("leases of pushes not renewed")

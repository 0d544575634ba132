"""Room for calls that may hang, shared by merchant among the threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mpesa_gateway.domain.shares import Shares, Tenancy


class Room:
    """Lets at most `places` calls in at once, and of one merchant a share. Nobody waits."""

    def __init__(self, places: int, *, tenancy: Callable[[], Tenancy]) -> None:
        self._shares = Shares(places)
        self._tenancy = tenancy
        self._lock = threading.Lock()

    @contextmanager
    def enter(self, merchant: str) -> Iterator[bool]:
        """Whether there is room for one more call of the merchant, which ends with the block."""
        with self._lock:
            entered = self._shares.take(merchant, self._tenancy())
        try:
            yield entered
        finally:
            if entered:
                with self._lock:
                    self._shares.give_back(merchant)

"""The entrance to a payment: few begin at a time, so that what has begun ends in time.

An API process has 128 threads for pushes, because Safaricom may take long to answer. When more is
asked for than the machine can do, all of them would work at once, each as slowly as the 128th, and
callers would give up and ask again. In line, a payment waits without using anything.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from mpesa_gateway.errors import UnavailableError

# Payments of a process between their request and their commit. Half of the default pool: the other
# half is for those that have begun.
PLACES = 6
# The longest wait in line. Callers wait ten seconds or more; the rest is for the push.
PATIENCE_S = 5.0


class Entrance:
    """Places, and one line for them: first come, first served. For threads."""

    def __init__(self, places: int = PLACES, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._free = places
        # Each waits for its event, which is set when it is given a place.
        self._line: deque[threading.Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold a place. Raises UnavailableError when none comes in time; nothing has begun then."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def _take(self) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = threading.Event()
            self._line.append(turn)
        if turn.wait(self._patience_s):
            return
        with self._lock:
            # Given between the end of the wait and this look.
            if turn.is_set():
                return
            self._line.remove(turn)
        raise UnavailableError("more payments are asked for than can be begun in time")

    def _give_back(self) -> None:
        with self._lock:
            if self._line:
                self._line.popleft().set()
            else:
                self._free += 1

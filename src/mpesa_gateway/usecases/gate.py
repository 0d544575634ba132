"""Keeps a slow endpoint from taking every thread of a worker: bookkeeping within one process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

# Turned-away deliveries that are remembered; the sweeper finds the others.
MAX_WAITING_PER_ENDPOINT = 1000
MAX_WAITING_ENDPOINTS = 1000
# A try that has lasted longer only waits for its endpoint: it takes nobody's turn.
SLOW_S = 1.0


def threads_for(concurrency: int) -> int:
    """A worker's threads: those that work, and as many again that wait for slow endpoints."""
    return 2 * concurrency


class Gate:
    """Lets so many deliveries in at once, and of one endpoint only a share.

    An endpoint that failed last time is tried by one thread at a time. What is turned away is
    remembered and handed back by `leave`.
    """

    def __init__(self, concurrency: int, time_s: Callable[[], float] = time.monotonic) -> None:
        # Callbacks and queries share the threads, so deliveries never take the last two.
        self._most = max(1, concurrency - 2)
        self._most_of_one = max(1, self._most * 2 // 3)
        self._most_with_slow = self._most + threads_for(concurrency) - concurrency
        self._time_s = time_s
        # Of each origin, when its tries began.
        self._inside: dict[str, list[float]] = {}
        self._waiting: OrderedDict[str, deque[int]] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, origin: str, delivery_id: int, *, failing: bool) -> bool:
        """Whether the delivery may be tried now. Whoever enters must `leave`."""
        share = 1 if failing else self._most_of_one
        with self._lock:
            if len(self._inside.get(origin, ())) < share and self._has_room():
                self._inside.setdefault(origin, []).append(self._time_s())
                return True
            self._remember(origin, delivery_id)
            return False

    def leave(self, origin: str) -> list[int]:
        """One is done; the deliveries that may try to enter next."""
        with self._lock:
            # The youngest: of a mixed lot it is the quick ones that come and go.
            self._inside[origin].pop()
            if not self._inside[origin]:
                del self._inside[origin]
            return self._recall(origin)

    def _has_room(self) -> bool:
        begun = [at for each in self._inside.values() for at in each]
        slow_since = self._time_s() - SLOW_S
        quick = sum(at > slow_since for at in begun)
        return quick < self._most and len(begun) < self._most_with_slow

    def _remember(self, origin: str, delivery_id: int) -> None:
        waiting = self._waiting.get(origin)
        if waiting is None:
            if len(self._waiting) >= MAX_WAITING_ENDPOINTS:
                return
            waiting = self._waiting[origin] = deque()
        if len(waiting) < MAX_WAITING_PER_ENDPOINT:
            waiting.append(delivery_id)

    def _recall(self, origin: str) -> list[int]:
        """One of the same endpoint, and one of the other endpoint that has waited longest."""
        recalled = []
        other = next((name for name in self._waiting if name != origin), None)
        for name in (origin, other):
            waiting = self._waiting.get(name) if name is not None else None
            if name is None or not waiting:
                continue
            recalled.append(waiting.popleft())
            del self._waiting[name]
            if waiting:
                self._waiting[name] = waiting
        return recalled

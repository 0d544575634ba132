"""Keeps a slow endpoint from taking every thread of a worker: bookkeeping within one process."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque

# Turned-away deliveries that are remembered; the sweeper finds the others.
MAX_WAITING_PER_ENDPOINT = 1000
MAX_WAITING_ENDPOINTS = 1000


class Gate:
    """Lets so many deliveries in at once, and of one endpoint only a share.

    An endpoint that failed last time is tried by one thread at a time. What is turned away is
    remembered and handed back by `leave`.
    """

    def __init__(self, threads: int) -> None:
        # Callbacks and queries share the threads, so deliveries never take the last two.
        self._most = max(1, threads - 2)
        self._most_of_one = max(1, self._most * 2 // 3)
        self._inside: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[int]] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, origin: str, delivery_id: int, *, failing: bool) -> bool:
        """Whether the delivery may be tried now. Whoever enters must `leave`."""
        share = 1 if failing else self._most_of_one
        with self._lock:
            if self._inside[origin] < share and self._inside.total() < self._most:
                self._inside[origin] += 1
                return True
            self._remember(origin, delivery_id)
            return False

    def leave(self, origin: str) -> list[int]:
        """One is done; the deliveries that may try to enter next."""
        with self._lock:
            self._inside[origin] -= 1
            if self._inside[origin] <= 0:
                del self._inside[origin]
            return self._recall(origin)

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

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
# Who was sent for comes within milliseconds, or not at all.
KEPT_S = 0.5


def threads_for(concurrency: int) -> int:
    """A worker's threads: those that work, and as many again that wait for slow endpoints."""
    return 2 * concurrency


class Gate:
    """Lets so many deliveries in at once, and of one endpoint only a share.

    An endpoint that failed last time is tried by one thread at a time. What is turned away is
    remembered and handed back by `leave`, when it may enter.
    """

    def __init__(self, concurrency: int, time_s: Callable[[], float] = time.monotonic) -> None:
        # Callbacks and queries share the threads, so deliveries never take the last two.
        self._most = max(1, concurrency - 2)
        self._most_of_one = max(1, self._most * 2 // 3)
        self._most_with_slow = self._most + threads_for(concurrency) - concurrency
        self._time_s = time_s
        # Of each origin, when its tries began.
        self._inside: dict[str, list[float]] = {}
        # Places kept for deliveries that were sent for: their origins, and since when.
        self._sent_for: dict[int, tuple[str, float]] = {}
        # Of those inside or waiting: who failed last time.
        self._failing: set[str] = set()
        self._waiting: OrderedDict[str, deque[int]] = OrderedDict()
        self._remembered: set[int] = set()
        self._lock = threading.Lock()

    def enter(self, origin: str, delivery_id: int, *, failing: bool) -> bool:
        """Whether the delivery may be tried now. Whoever enters must `leave`."""
        with self._lock:
            self._sent_for.pop(delivery_id, None)
            if failing:
                self._failing.add(origin)
            else:
                self._failing.discard(origin)
            if self._room() > 0 and self._has_share(origin):
                self._inside.setdefault(origin, []).append(self._time_s())
                return True
            self._remember(origin, delivery_id)
            self._forget(origin)
            return False

    def leave(self, origin: str) -> list[int]:
        """One is done; the deliveries that may enter now."""
        with self._lock:
            # The youngest: of a mixed lot it is the quick ones that come and go.
            self._inside[origin].pop()
            if not self._inside[origin]:
                del self._inside[origin]
            self._forget(origin)
            return self._recall()

    def give_up(self, delivery_id: int) -> list[int]:
        """This one does not come, if it was sent for; the deliveries that may enter now."""
        with self._lock:
            self._sent_for.pop(delivery_id, None)
            return self._recall()

    def _has_share(self, origin: str) -> bool:
        share = 1 if origin in self._failing else self._most_of_one
        coming = sum(name == origin for name, _ in self._sent_for.values())
        return len(self._inside.get(origin, ())) + coming < share

    def _room(self) -> int:
        now = self._time_s()
        for delivery_id, (_, at) in list(self._sent_for.items()):
            # The ring for it was lost, or another process has it.
            if now - at > KEPT_S:
                del self._sent_for[delivery_id]
        begun = [at for each in self._inside.values() for at in each]
        quick = sum(at > now - SLOW_S for at in begun)
        room = min(self._most - quick, self._most_with_slow - len(begun))
        return room - len(self._sent_for)

    def remembers(self, delivery_id: int) -> bool:
        """Whether it was turned away and will be sent for: nobody else need offer it.

        Only while somebody is inside, who will leave: those who were sent for may not have come.
        """
        with self._lock:
            return bool(self._inside) and delivery_id in self._remembered

    def _remember(self, origin: str, delivery_id: int) -> None:
        if delivery_id in self._remembered:
            return
        waiting = self._waiting.get(origin)
        if waiting is None:
            if len(self._waiting) >= MAX_WAITING_ENDPOINTS:
                return
            waiting = self._waiting[origin] = deque()
        if len(waiting) < MAX_WAITING_PER_ENDPOINT:
            waiting.append(delivery_id)
            self._remembered.add(delivery_id)

    def _recall(self) -> list[int]:
        """As many as there is room for, each endpoint in turn, by how long they have waited.

        No more, and their places are kept: each that is sent for and turned away again costs a
        look into Postgres.
        """
        recalled: list[int] = []
        now, room, names = self._time_s(), self._room(), deque(self._waiting)
        while names and len(recalled) < room:
            name = names.popleft()
            if not self._has_share(name):
                continue
            waiting = self._waiting.pop(name)
            recalled.append(waiting.popleft())
            self._remembered.discard(recalled[-1])
            self._sent_for[recalled[-1]] = name, now
            if waiting:
                self._waiting[name] = waiting
                names.append(name)
            self._forget(name)
        return recalled

    def _forget(self, origin: str) -> None:
        """That it failed, once nothing of it is here."""
        if origin not in self._inside and origin not in self._waiting:
            self._failing.discard(origin)

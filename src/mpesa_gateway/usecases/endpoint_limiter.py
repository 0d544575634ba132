"""Limits concurrent webhook attempts in one process: by merchant first, by endpoint second."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mpesa_gateway.domain.shares import Shares, Tenancy

# Deferred deliveries that are remembered, shared by merchant; the sweeper finds the others.
MAX_DEFERRED = 10_000
MAX_DEFERRED_PER_ENDPOINT = 1000
# An attempt that has lasted longer only waits for its endpoint, at no cost in CPU time, so it does
# not count as a fast one any more.
SLOW_S = 1.0
# Attempts only wait, so a small worker makes as many as one with the default concurrency.
LEAST_FAST = 8
LEAST_SLOW = 10
# Callbacks and queries share the worker's threads, so attempts never take the last two.
OTHER_THREADS = 2


class Endpoint(NamedTuple):
    """Where a webhook goes, as far as sharing is concerned."""

    merchant: str
    origin: str


@dataclass(frozen=True)
class Slots:
    """How many attempts may run at once: `fast` ones younger than SLOW_S, and `all` of them."""

    fast: int
    all: int

    @classmethod
    def of(cls, concurrency: int) -> Slots:
        """The slots of a worker with that concurrency."""
        fast = max(LEAST_FAST, concurrency - OTHER_THREADS)
        return cls(fast, fast + max(LEAST_SLOW, concurrency))


def threads_for(concurrency: int) -> int:
    """Return how many threads a worker needs, so that slow endpoints leave some for callbacks."""
    return Slots.of(concurrency).all + OTHER_THREADS


class EndpointLimiter:
    """Grants slots for attempts so that neither a merchant nor an endpoint takes all of them.

    A merchant's share does not depend on the number of its endpoints. An endpoint whose last
    attempt failed gets one slot. A delivery without a slot is deferred: `release`, `cancel` and
    `next_deferred` return the ones that have a slot reserved by then, and whoever gets them must
    attempt each of them in this process.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        tenancy: Callable[[], Tenancy] = lambda: Tenancy.MANY,
        time_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._most_per_endpoint = max(1, slots.fast * 2 // 3)
        self._tenancy = tenancy
        self._time_s = time_s
        # When the running attempts of each endpoint began.
        self._running: dict[Endpoint, list[float]] = {}
        # Slots of deliveries that were handed back and have not claimed them yet.
        self._reserved: dict[int, Endpoint] = {}
        # Endpoints with a running or deferred delivery whose last attempt failed.
        self._failing: set[Endpoint] = set()
        # By merchant, then by origin; both in the order of their turns.
        self._deferred: OrderedDict[str, OrderedDict[str, deque[int]]] = OrderedDict()
        self._deferred_ids: set[int] = set()
        self._memory = Shares(MAX_DEFERRED)
        self._lock = threading.Lock()

    def try_acquire(self, endpoint: Endpoint, delivery_id: int, *, failing: bool) -> bool:
        """Take a slot, or defer the delivery. Whoever gets a slot must `release` it."""
        with self._lock:
            self._reserved.pop(delivery_id, None)
            if failing:
                self._failing.add(endpoint)
            else:
                self._failing.discard(endpoint)
            if self._has_slot(endpoint):
                self._running.setdefault(endpoint, []).append(self._time_s())
                return True
            self._defer(endpoint, delivery_id)
            self._forget(endpoint)
            return False

    def release(self, endpoint: Endpoint) -> list[int]:
        """Give a slot back. Returns the deferred deliveries that now have one reserved."""
        with self._lock:
            # Drop the newest start time: fast attempts finish first.
            self._running[endpoint].pop()
            if not self._running[endpoint]:
                del self._running[endpoint]
            self._forget(endpoint)
            return self._reserve()

    def cancel(self, delivery_id: int) -> list[int]:
        """Give up a reserved slot, if there is one. Returns the deliveries that get it instead."""
        with self._lock:
            if self._reserved.pop(delivery_id, None) is None:
                return []
            return self._reserve()

    def next_deferred(self) -> list[int]:
        """Reserve the slots that became free because attempts turned slow."""
        with self._lock:
            return self._reserve()

    def is_deferred(self, delivery_id: int) -> bool:
        """Return whether the delivery is re-queued here without the sweeper."""
        with self._lock:
            return delivery_id in self._deferred_ids

    def is_reserved(self, delivery_id: int) -> bool:
        """Return whether a slot of this process is reserved for the delivery."""
        with self._lock:
            return delivery_id in self._reserved

    def _has_slot(self, endpoint: Endpoint) -> bool:
        share = 1 if endpoint in self._failing else self._most_per_endpoint
        reserved = sum(it == endpoint for it in self._reserved.values())
        held = len(self._running.get(endpoint, ())) + reserved
        return held < share and self._has_share(endpoint.merchant)

    def _has_share(self, merchant: str) -> bool:
        """Whether the merchant may have one more, of the fast attempts and of all."""
        fast, everything = Shares(self._slots.fast), Shares(self._slots.all)
        fast_since, tenancy = self._time_s() - SLOW_S, self._tenancy()
        for endpoint, began in self._running.items():
            fast.count(endpoint.merchant, sum(at > fast_since for at in began))
            everything.count(endpoint.merchant, len(began))
        for endpoint in self._reserved.values():
            fast.count(endpoint.merchant)
            everything.count(endpoint.merchant)
        return fast.has_room(merchant, tenancy) and everything.has_room(merchant, tenancy)

    def _defer(self, endpoint: Endpoint, delivery_id: int) -> None:
        if delivery_id in self._deferred_ids:
            return
        origins = self._deferred.get(endpoint.merchant, OrderedDict())
        if len(origins.get(endpoint.origin, ())) >= MAX_DEFERRED_PER_ENDPOINT:
            return
        if not self._memory.take(endpoint.merchant, self._tenancy()):
            return
        self._deferred[endpoint.merchant] = origins
        origins.setdefault(endpoint.origin, deque()).append(delivery_id)
        self._deferred_ids.add(delivery_id)

    def _reserve(self) -> list[int]:
        """Reserve slots for deferred deliveries: each merchant in turn, then each endpoint of it.

        As many as there are slots for and no more: each that finds none costs a database query.
        """
        handed_back: list[int] = []
        merchants = deque(self._deferred)
        while merchants:
            merchant = merchants.popleft()
            delivery_id = self._reserve_one(merchant)
            if delivery_id is not None:
                handed_back.append(delivery_id)
                merchants.append(merchant)
        return handed_back

    def _reserve_one(self, merchant: str) -> int | None:
        origins = self._deferred.get(merchant)
        if origins is None or not self._has_share(merchant):
            return None
        endpoints = (Endpoint(merchant, origin) for origin in origins)
        endpoint = next((it for it in endpoints if self._has_slot(it)), None)
        if endpoint is None:
            return None
        queue = origins[endpoint.origin]
        delivery_id = queue.popleft()
        self._deferred_ids.discard(delivery_id)
        self._memory.give_back(merchant)
        self._reserved[delivery_id] = endpoint
        self._end_turn(endpoint, queue)
        return delivery_id

    def _end_turn(self, endpoint: Endpoint, queue: deque[int]) -> None:
        """Move the merchant, and its endpoint, behind the others; drop what is empty."""
        origins = self._deferred[endpoint.merchant]
        origins.move_to_end(endpoint.origin)
        self._deferred.move_to_end(endpoint.merchant)
        if not queue:
            del origins[endpoint.origin]
        if not origins:
            del self._deferred[endpoint.merchant]
        self._forget(endpoint)

    def _forget(self, endpoint: Endpoint) -> None:
        """Forget that the endpoint failed, once nothing of it is here."""
        waiting = endpoint.origin in self._deferred.get(endpoint.merchant, ())
        if endpoint not in self._running and not waiting:
            self._failing.discard(endpoint)


class Slot:
    """The slot of one delivery's attempt, from its claim to its end."""

    def __init__(self, limiter: EndpointLimiter, delivery_id: int) -> None:
        self.delivery_id = delivery_id
        self._limiter = limiter
        self._endpoint: Endpoint | None = None

    def try_acquire(self, endpoint: Endpoint, *, failing: bool) -> bool:
        """Take it, or defer the delivery."""
        if not self._limiter.try_acquire(endpoint, self.delivery_id, failing=failing):
            return False
        self._endpoint = endpoint
        return True

    def release(self) -> list[int]:
        """Give back what was acquired or reserved. Returns the deliveries that get it instead."""
        handed_back = self._limiter.cancel(self.delivery_id)
        if self._endpoint is not None:
            handed_back += self._limiter.release(self._endpoint)
            self._endpoint = None
        return handed_back

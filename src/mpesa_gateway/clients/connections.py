"""The connections that are kept for later, shared by namespace and merchant."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable

from urllib3.connectionpool import HTTPConnectionPool

from mpesa_gateway.clients.caller import current_merchant
from mpesa_gateway.domain.shares import may_take, namespace_of

# Endpoints whose connections are kept, of all merchants; one merchant gets half. To make a pool
# again costs as much as the request.
MAX_ENDPOINTS = 256


class SharedPools:
    """Stands in for the container of PoolManager, with an entry for each caller and endpoint.

    A merchant with many endpoints pushes out its own connections and nobody else's; the first
    connection of another takes the place of one of whoever keeps most.
    """

    def __init__(self, most: int = MAX_ENDPOINTS) -> None:
        self._most = most
        # By merchant, the longest unused first.
        self._pools: dict[str, OrderedDict[Hashable, HTTPConnectionPool]] = {}
        # PoolManager holds it around `get` and the assignment.
        self.lock = threading.RLock()

    def get(self, key: Hashable) -> HTTPConnectionPool | None:
        """Return the caller's pool for that endpoint."""
        with self.lock:
            own = self._pools.get(current_merchant(), OrderedDict())
            if key in own:
                own.move_to_end(key)
            return own.get(key)

    def __setitem__(self, key: Hashable, pool: HTTPConnectionPool) -> None:
        """Keep a pool of the caller, in the place of another if need be."""
        with self.lock:
            merchant = current_merchant()
            own = self._pools.get(merchant, OrderedDict())
            of_namespace = self._held_by_namespaces()[namespace_of(merchant)]
            free = self._most - len(self)
            if not may_take(held=len(own), of_namespace=of_namespace, free=free):
                self._drop_oldest(merchant if own else self._largest())
            self._pools.setdefault(merchant, OrderedDict())[key] = pool

    def __len__(self) -> int:
        """Return how many pools are kept."""
        return sum(len(pools) for pools in self._pools.values())

    def clear(self) -> None:
        """Close all."""
        with self.lock:
            while self._pools:
                self._drop_oldest(next(iter(self._pools)))

    def _held_by_namespaces(self) -> Counter[str]:
        held: Counter[str] = Counter()
        for merchant, pools in self._pools.items():
            held[namespace_of(merchant)] += len(pools)
        return held

    def _largest(self) -> str:
        """The merchant that keeps most, of the namespace that keeps most."""
        held = self._held_by_namespaces()
        return max(self._pools, key=lambda it: (held[namespace_of(it)], len(self._pools[it])))

    def _drop_oldest(self, merchant: str) -> None:
        _, pool = self._pools[merchant].popitem(last=False)
        if not self._pools[merchant]:
            del self._pools[merchant]
        pool.close()

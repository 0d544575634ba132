"""Divides a bounded resource among namespaces and their merchants, whoever comes first.

The rule is the dynamic threshold of shared packet buffers (Choudhury and Hahne, 1998): a merchant
may take another place while it holds fewer than are free. One alone gets half, the next one half of
the rest at once, and so on; no merchant waits for another, and their number plays no part.

A tenant may make many merchants in its namespace, so the same rule, twice as generous, holds for
all merchants of a namespace together: they get two thirds at most and never the last place.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum


class Tenancy(Enum):
    """Who is served, and therefore for whom room is left."""

    ONE_MERCHANT = "one merchant"
    ONE_NAMESPACE = "several merchants of one namespace"
    MANY = "several namespaces"


def namespace_of(merchant: str) -> str:
    """Return what stands before the merchant's own name; a name without one is its own."""
    namespace, slash, _ = merchant.partition("/")
    return namespace + slash


def may_take(*, held: int, of_namespace: int, free: int, tenancy: Tenancy = Tenancy.MANY) -> bool:
    """Return whether a merchant may take one of the `free` places.

    It holds `held` itself, and all merchants of its namespace together hold `of_namespace`.
    """
    if tenancy is Tenancy.ONE_MERCHANT:
        return free > 0
    if tenancy is Tenancy.MANY and of_namespace and of_namespace >= 2 * (free - 1):
        return False
    return held < free


class Shares:
    """Counts who holds how many of `places`. Not safe for threads: its owner holds a lock."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._held: Counter[str] = Counter()
        self._of_namespace: Counter[str] = Counter()
        self._taken = 0

    def has_room(self, merchant: str, tenancy: Tenancy = Tenancy.MANY) -> bool:
        """Return whether the merchant may take a place now."""
        return may_take(
            held=self.held_by(merchant),
            of_namespace=self._of_namespace.get(namespace_of(merchant), 0),
            free=self.places - self._taken,
            tenancy=tenancy,
        )

    def take(self, merchant: str, tenancy: Tenancy = Tenancy.MANY) -> bool:
        """Take a place if the merchant may. Whoever took one must give it back."""
        if not self.has_room(merchant, tenancy):
            return False
        self.count(merchant)
        return True

    def count(self, merchant: str, places: int = 1) -> None:
        """Count places that the merchant holds already, whether it may or not."""
        self._held[merchant] += places
        self._of_namespace[namespace_of(merchant)] += places
        self._taken += places

    def give_back(self, merchant: str) -> None:
        """End what `take` began."""
        assert self._held[merchant] > 0, merchant
        self._taken -= 1
        _one_less(self._held, merchant)
        _one_less(self._of_namespace, namespace_of(merchant))

    def held_by(self, merchant: str) -> int:
        """Return how many places the merchant holds."""
        return self._held.get(merchant, 0)


def _one_less(held: Counter[str], name: str) -> None:
    held[name] -= 1
    if not held[name]:
        del held[name]

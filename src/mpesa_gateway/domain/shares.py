"""Divides a bounded resource among merchants, whoever comes first.

The rule is the dynamic threshold of shared packet buffers (Choudhury and Hahne, 1998): a merchant
may take another place while it holds fewer than are free. One alone gets half, the next one half of
the rest at once, and so on; no merchant waits for another, and their number plays no part.
"""

from __future__ import annotations

from collections import Counter


def may_take(*, held: int, free: int, alone: bool = False) -> bool:
    """Return whether a merchant that holds `held` places may take one of the `free` ones.

    `alone`: no other merchant exists, so nothing has to be left for one.
    """
    return free > 0 if alone else held < free


class Shares:
    """Counts who holds how many of `places`. Not safe for threads: its owner holds a lock."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._held: Counter[str] = Counter()
        self._taken = 0

    def has_room(self, merchant: str, *, alone: bool = False) -> bool:
        """Return whether the merchant may take a place now."""
        return may_take(held=self.held_by(merchant), free=self.places - self._taken, alone=alone)

    def take(self, merchant: str, *, alone: bool = False) -> bool:
        """Take a place if the merchant may. Whoever took one must give it back."""
        if not self.has_room(merchant, alone=alone):
            return False
        self._held[merchant] += 1
        self._taken += 1
        return True

    def give_back(self, merchant: str) -> None:
        """End what `take` began."""
        assert self._held[merchant] > 0, merchant
        self._held[merchant] -= 1
        self._taken -= 1
        if not self._held[merchant]:
            del self._held[merchant]

    def held_by(self, merchant: str) -> int:
        """Return how many places the merchant holds."""
        return self._held.get(merchant, 0)

"""Random failures that a seed makes the same in every run."""

from __future__ import annotations

import random
from dataclasses import dataclass

from daraja_simulator.settings import Settings


@dataclass(frozen=True)
class PushChances:
    """What chance adds to the outcome of one push."""

    push_fails: bool
    callback_dropped: bool
    callback_doubled: bool

    def copies(self, usual: int) -> int:
        """How often the callback comes, when the outcome says `usual`."""
        if self.callback_dropped:
            return 0
        return 2 * usual if self.callback_doubled else usual


class Chances:
    """Draws the same numbers for each push whatever the rates, so that a change of one rate
    leaves the other failures where they were. Queries draw from a stream of their own.
    """

    def __init__(self, seed: int | None) -> None:
        self._pushes = random.Random(_stream(seed, "pushes"))  # noqa: S311  no secret is made
        self._queries = random.Random(_stream(seed, "queries"))  # noqa: S311  no secret is made

    def draw_push(self, settings: Settings) -> PushChances:
        """The chances of the next push."""
        return PushChances(
            push_fails=self._pushes.random() < settings.push_failure_rate,
            callback_dropped=self._pushes.random() < settings.callback_drop_rate,
            callback_doubled=self._pushes.random() < settings.callback_duplicate_rate,
        )

    def draw_query_failure(self, settings: Settings) -> bool:
        """Whether the next query gets no information."""
        return self._queries.random() < settings.query_failure_rate


def _stream(seed: int | None, name: str) -> str | None:
    return None if seed is None else f"{seed}-{name}"

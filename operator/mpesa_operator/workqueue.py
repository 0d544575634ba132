"""Which MerchantConfigs to look at, and when: each once at a time, however often asked for."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """A key whose time has come. `fresh` says that its Secrets must be read again."""

    key: str
    fresh: bool


@dataclass
class _Times:
    """When to look at a key again, and when to read its Secrets again; never is infinite."""

    light: float = math.inf
    fresh: float = math.inf

    @property
    def due(self) -> float:
        return min(self.light, self.fresh)


class Queue:
    """A queue of keys with times. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: dict[str, _Times] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()
        self._active: set[str] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._times)

    def add(self, key: str, *, delay_s: float = 0.0, fresh: bool = True) -> None:
        """Look at the key after the delay, or earlier when that was asked for already."""
        at = self._clock() + delay_s
        times = self._times.setdefault(key, _Times())
        if fresh:
            times.fresh = min(times.fresh, at)
        else:
            times.light = min(times.light, at)
        self._push(key)
        self._changed.set()

    def discard(self, key: str) -> None:
        """Forget a key that is not needed any more."""
        self._times.pop(key, None)

    def _push(self, key: str) -> None:
        heapq.heappush(self._heap, (self._times[key].due, next(self._numbers), key))

    def take(self) -> Turn | None:
        """The next key whose time has come and that nobody is at; None when there is none."""
        now = self._clock()
        held: list[str] = []
        turn = None
        while turn is None and self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            times = self._times.get(key)
            if times is None or times.due != at:
                continue  # An older wish for a key that has another time by now.
            if key in self._active:
                held.append(key)
                continue
            turn = self._turn(key, times, now)
        for key in held:
            self._push(key)
        return turn

    def _turn(self, key: str, times: _Times, now: float) -> Turn:
        turn = Turn(key, fresh=times.fresh <= now)
        self._active.add(key)
        times.light = math.inf
        if turn.fresh:
            del self._times[key]
        else:
            self._push(key)
        return turn

    def done(self, key: str) -> None:
        """The key may be taken again."""
        self._active.discard(key)
        self._changed.set()

    async def next(self) -> Turn:
        """Wait for the next turn."""
        while (turn := self.take()) is None:
            self._changed.clear()
            # No `wait_for`: its inner task would look to kopf like one that hangs at the end.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._changed.wait()
        return turn

    def _wait_s(self) -> float | None:
        """How long nothing will be due; None for ever."""
        due = [it.due for key, it in self._times.items() if key not in self._active]
        earliest = min(due, default=math.inf)
        return None if earliest == math.inf else max(0.0, earliest - self._clock())

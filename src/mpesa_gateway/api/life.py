"""Whether the API's event loop turns, for the probe on the metrics port and its thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BEAT_S = 1.0
# Nothing on the loop takes a second; a machine that sleeps for so long is no reason to kill it.
STUCK_AFTER_S = 30.0


class Life:
    """Beats with the event loop, once it has begun."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_at: float | None = None
        self._works: Callable[[], bool] = lambda: True

    def begin(self, works: Callable[[], bool]) -> None:
        """From within the loop. `works` says whether what serves it lives."""
        self._works = works
        self._beat(asyncio.get_running_loop())

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat_at = self._clock()
        loop.call_later(BEAT_S, self._beat, loop)

    def is_live(self) -> bool:
        """From any thread; a process that starts is alive."""
        if self._beat_at is None:
            return True
        return self._works() and self._clock() - self._beat_at < STUCK_AFTER_S

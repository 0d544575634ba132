"""The signals that end the demo. They only leave a note, and the loops of the demo look at it.

An exception raised by a signal handler comes between any two instructions, also where a library
holds a lock; then the clean-up that it starts may wait for that lock for ever.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Self

# Ctrl-C, a polite kill, a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndedError(Exception):
    """A signal asked the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Ending:
    """Notes the first signal, from `with` to the end of its block. Main thread only."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise EndedError when a signal came."""
        if self.number is not None:
            raise EndedError(self.number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number = number

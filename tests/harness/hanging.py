"""Processes that neither answer nor go away, as on a machine that is out of memory."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hung(pid: int) -> Iterator[None]:
    """Inside the block, the process and its children stand still: SIGSTOP."""
    stopped = []
    try:
        for number in (pid, *_children(pid)):
            # A child may end before its turn.
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGSTOP)
                stopped.append(number)
        yield
    finally:
        for number in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

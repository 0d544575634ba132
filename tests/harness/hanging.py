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
    stopped = send_all([pid, *children(pid)], signal.SIGSTOP)
    try:
        yield
    finally:
        send_all(stopped[::-1], signal.SIGCONT)


def send_all(pids: list[int], number: int) -> list[int]:
    """Send a signal to each; those that it reached."""
    reached = []
    for pid in pids:
        # A child may end before its turn.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            reached.append(pid)
    return reached


def children(pid: int) -> list[int]:
    """Of a process that runs; none when it does not."""
    try:
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []

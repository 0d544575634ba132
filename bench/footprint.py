"""CPU time and memory of a process and its children, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and everything below it."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text().split()]
    return [pid, *(it for child in children for it in tree(child))]


def cpu_s(pid: int) -> float:
    """User and system time of the tree so far."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory_mib(pid: int) -> tuple[float, float]:
    """PSS and RSS of the tree. PSS counts a page that two share half for each."""
    pss = rss = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in ("Pss", "Rss"):
                    size = int(rest.split()[0])
                    pss, rss = (pss + size, rss) if name == "Pss" else (pss, rss + size)
    return pss / 1024, rss / 1024

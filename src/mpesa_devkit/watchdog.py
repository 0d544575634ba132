"""Ends the processes that we started when we are gone, however we went: by SIGKILL too.

Run as a program, it reads process ids from its standard input, a line each. The end of the input
is the end of whoever started it; what still runs of them is killed then, with all descendants.
They are stopped first, so that none makes another while they are counted.

Linux could end a child by itself (PR_SET_PDEATHSIG). But it does so at the end of the thread that
made the child, and it leaves grandchildren, some of which never notice: a server of gunicorn or a
backend of Postgres that stands still.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

END_TIMEOUT_S = 5.0
POLL_S = 0.02
# A Ctrl-C is for those whose end it waits for.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Watchdog:
    """The program, as seen by whoever starts it. One is enough for a process."""

    def __init__(self) -> None:
        self._popen: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> int:
        """Start it if need be. To this descriptor a child writes its id before it runs."""
        with self._lock:
            if self._popen is None:
                self._popen = subprocess.Popen(  # noqa: S603 - our own program
                    # Isolated and without site-packages: it is there in milliseconds.
                    [sys.executable, "-I", "-S", __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                )
                atexit.register(self._stop, self._popen)
            assert self._popen.stdin is not None
            return self._popen.stdin.fileno()

    def _stop(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdin is not None
        popen.stdin.close()
        popen.wait(2 * END_TIMEOUT_S)


def register(descriptor: int) -> None:
    """Called by a child between its birth and its program: nobody can kill us in between."""
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, b"%d\n" % os.getpid())


def read_stat(pid: int) -> tuple[int, str] | None:
    """A process's parent and its time of birth; None when it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # After its name in parentheses, which may hold anything.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[1]), fields[19]) if fields[0] not in "ZX" else None


def running() -> dict[int, tuple[int, str]]:
    """Every process's parent and time of birth; empty where there is no /proc."""
    pids = [int(it.name) for it in Path("/proc").glob("[0-9]*")]
    return {pid: stat for pid in pids if (stat := read_stat(pid)) is not None}


def family(roots: Iterable[int]) -> list[int]:
    """Those that run, and their descendants; parents first."""
    children = defaultdict(list)
    for pid, (parent, _) in running().items():
        children[parent].append(pid)
    found = list(dict.fromkeys(roots))
    for pid in found:
        found += [child for child in children[pid] if child not in found]
    return found


def end_all(roots: Iterable[int]) -> None:
    """Kill them and their descendants, and see to it that they are gone."""
    known = set[int]()
    while fresh := [it for it in family([*roots, *known]) if it not in known]:
        _send(fresh, signal.SIGSTOP)
        known.update(fresh)
    give_up = time.monotonic() + END_TIMEOUT_S
    while known and time.monotonic() < give_up:
        _send(known, signal.SIGKILL)
        time.sleep(POLL_S)
        known &= running().keys()


def _send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def main() -> None:
    """Until the end of the input."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # A number may become somebody else's; that one is born at another time.
    births = {int(line): read_stat(int(line)) for line in sys.stdin}
    end_all([pid for pid, born in births.items() if _birth(born) == _birth(read_stat(pid))])


def _birth(stat: tuple[int, str] | None) -> str:
    return stat[1] if stat is not None else ""


if __name__ == "__main__":
    main()

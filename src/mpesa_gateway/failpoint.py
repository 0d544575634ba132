"""Named places where a crash test may end this process: nothing but a comparison elsewhere.

They stand before and after every commit, Redis call and outbound call; a test walks the syntax
tree and demands them. Config refuses to arm them in production.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_hook: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """Do what the armed test wants here; nothing when none is armed."""
    if _hook is not None:
        _hook(name)


@contextmanager
def step(name: str) -> Iterator[None]:
    """A call that leaves the process: a failpoint before it, and one after it has succeeded."""
    failpoint(f"{name}.before")
    yield
    failpoint(f"{name}.after")


def arm(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of every failpoint that is reached, from any thread."""
    global _hook  # noqa: PLW0603 - one per process, as the signal that it sends
    _hook = hook


def die_as_told(directory: Path) -> Callable[[str], None]:
    """A hook that keeps the names in the file `hits`, and dies where the file `die` says.

    Only one process dies of one order: it takes the file away first.
    """

    def hook(name: str) -> None:
        with (directory / "hits").open("ab") as hits:
            hits.write(name.encode() + b"\n")
        order = directory / "die"
        try:
            if order.read_text() != name:
                return
            order.rename(directory / "died")
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    return hook

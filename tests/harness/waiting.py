"""Waiting for something with a deadline: no test sleeps for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
# For what must not wait for a peer that hangs for ten seconds or more: a busy machine takes some.
PROMPTLY_S = 8.0


def wait_for(look: Callable[[], Value], *, timeout_s: float = 60.0, what: str = "") -> Value:
    """Return the first true value of `look`. Fails at the deadline, saying what was seen last.

    The deadline is for what never comes: beside eight busy processes, a start takes 20 s.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {timeout_s} s: {what or look}; last seen: {seen!r}")
        time.sleep(0.02)

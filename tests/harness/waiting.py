"""Waiting for something with a deadline: no test sleeps for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(look: Callable[[], Value], *, timeout_s: float = 15.0, what: str = "") -> Value:
    """The first true value of `look`. Fails at the deadline, saying what was seen last."""
    give_up = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {timeout_s} s: {what or look}; last seen: {seen!r}")
        time.sleep(0.02)

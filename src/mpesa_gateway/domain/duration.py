"""Durations as they are written in settings and merchant files: `500ms`, `5s`, `1m`, `1h`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)\Z", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """One duration. Raises ValueError with a sentence that shows the form."""
    match = _DURATION.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 500ms, 5s, 1m or 1h")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def parse_schedule(texts: list[str]) -> tuple[timedelta, ...]:
    """Waits, in order, each above zero. Raises ValueError."""
    waits = tuple(parse_duration(text) for text in texts)
    if any(wait <= timedelta(0) for wait in waits):
        raise ValueError("every wait must be longer than zero")
    return waits


def duration_text(duration: timedelta) -> str:
    """The shortest form that `parse_duration` reads back."""
    milliseconds = round(duration.total_seconds() * 1000)
    for unit in ("h", "m", "s"):
        size = round(_UNITS[unit] * 1000)
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"

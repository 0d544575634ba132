"""The throttle in front of the query API."""

from __future__ import annotations

MAX_APPS = 10_000


class SpikeArrest:
    """Lets one request of an app pass in each 60 / N seconds, which is N per minute, burst 1 [M].

    A refused request does not move the next turn. Times are seconds of one clock.
    """

    def __init__(self) -> None:
        self._next_at: dict[str, float] = {}

    def allows(self, app_key: str, now: float, per_minute: int) -> bool:
        """Whether the request may pass; `per_minute` 0 sets no limit."""
        if per_minute == 0:
            return True
        if now < self._next_at.get(app_key, now):
            return False
        if len(self._next_at) >= MAX_APPS:
            self._next_at.clear()
        self._next_at[app_key] = now + 60 / per_minute
        return True

"""A clock that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


class Clock:
    """Call it for the time; `advance` moves it. Starts at the real time unless told otherwise."""

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start
        self._offset = timedelta(0)

    def __call__(self) -> datetime:
        return (self._start or datetime.now(UTC)) + self._offset

    def advance(self, **duration: float) -> None:
        """As timedelta: `advance(minutes=1)`."""
        self._offset += timedelta(**duration)

    def restart(self) -> None:
        """The real time again."""
        self._start, self._offset = None, timedelta(0)

    def stop_at(self, start: datetime) -> None:
        """From now on it moves only when it is advanced."""
        self._start, self._offset = start, timedelta(0)

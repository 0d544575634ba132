"""Months of payments: ranges of row numbers, so that all rows of a payment share a partition.

The month says from which number on payments are counted while it lasts (`store/months.py`), so a
payment's month is told by its row number, and the ranges of months to come are known beforehand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

# More payments than a month can have, and 2**63 holds 76 million years of it.
NUMBERS = 10_000_000_000
_FIRST_YEAR = 2026
_LABEL = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])\Z")
_FIRST_LABEL = "first"


@dataclass(frozen=True, order=True)
class Month:
    """A month of UTC. Number 1 is January 2026; 0 is all that came before months were counted."""

    number: int

    @property
    def label(self) -> str:
        """As in `2026-12`; `first` for what came before months were counted."""
        if self.number == 0:
            return _FIRST_LABEL
        years, month = divmod(self.number - 1, 12)
        return f"{_FIRST_YEAR + years}-{month + 1:02d}"

    @property
    def suffix(self) -> str:
        """Ends the names of its partitions."""
        return self.label.replace("-", "_")

    @property
    def begins(self) -> int:
        """The lowest row number of its payments."""
        return self.number * NUMBERS

    @property
    def ends(self) -> int:
        """The lowest row number of the next month."""
        return (self.number + 1) * NUMBERS

    def next(self, count: int) -> list[Month]:
        """Return so many months from this one on."""
        return [Month(self.number + it) for it in range(count)]


def month_of(at: datetime) -> Month:
    """Return the month of a time; the first one for a time before 2026."""
    at = at.astimezone(UTC)
    return Month(max(12 * (at.year - _FIRST_YEAR) + at.month, 0))


def month_of_row(row: int) -> Month:
    """Return the month that a payment's row number tells."""
    return Month(row // NUMBERS)


def parse_month(text: str) -> Month:
    """Return the month of a label. Raises ValueError."""
    if text == _FIRST_LABEL:
        return Month(0)
    match = _LABEL.match(text)
    if match is None or (number := 12 * (int(match[1]) - _FIRST_YEAR) + int(match[2])) < 1:
        raise ValueError(f"{text!r} is no month: 2026-01 or later, or {_FIRST_LABEL}")
    return Month(number)

"""What a run found: figures with their rounds, goals and notes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plan:
    """How long to measure. `short` proves that everything works and is of no use as a figure."""

    rounds: int
    seconds: float
    short: bool

    @classmethod
    def named(cls, name: str) -> Plan:
        """`full`, or `short` for CI."""
        if name == "short":
            return cls(rounds=1, seconds=1.0, short=True)
        return cls(rounds=5, seconds=2.5, short=False)


@dataclass(frozen=True)
class Goal:
    """A bound for the median, and one beyond it."""

    sign: str
    bound: float
    beyond: float | None = None

    def __str__(self) -> str:
        far = "" if self.beyond is None else f" ({self.sign} {self.beyond:g})"
        return f"{self.sign} {self.bound:g}{far}"

    def verdict(self, value: float) -> str:
        """In a word."""
        if self.beyond is not None and self._holds(value, self.beyond):
            return "beyond"
        return "reached" if self._holds(value, self.bound) else "missed"

    def _holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.sign == "≥" else value <= bound


def at_least(bound: float, beyond: float | None = None) -> Goal:
    """For what should be large."""
    return Goal("≥", bound, beyond)


def at_most(bound: float, beyond: float | None = None) -> Goal:
    """For what should be small."""
    return Goal("≤", bound, beyond)


@dataclass
class Figure:
    """One line of the table: the values of its rounds."""

    name: str
    values: list[float] = field(default_factory=list)
    goal: Goal | None = None
    unit: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        """The value to judge by."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """Against the goal, in a word; empty without one."""
        return self.goal.verdict(self.median) if self.goal is not None else ""

    def to_json(self) -> dict[str, object]:
        """As it is kept."""
        return {
            "name": self.name,
            "unit": self.unit,
            "goal": str(self.goal or ""),
            "verdict": self.verdict,
            "minimum": min(self.values),
            "median": self.median,
            "maximum": max(self.values),
            "rounds": self.values,
            "note": self.note,
        }

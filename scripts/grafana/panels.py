"""What a dashboard is made of. Plain data, so that tests and pictures read it without Grafana."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """Grafana's name of a unit."""

    SECONDS = "s"
    SHARE = "percentunit"
    COUNT = "short"
    PER_MINUTE = "suffix: /min"
    SHILLINGS = "currency:KES "
    SHILLINGS_PER_HOUR = "suffix: KES/h"
    BYTES = "bytes"
    TIMES = "suffix: times"


class Kind(StrEnum):
    """How a panel shows its values."""

    STAT = "stat"
    LINES = "lines"
    STACKED = "stacked"


@dataclass(frozen=True)
class Query:
    """One PromQL expression; `legend` is a Grafana legend format, such as `{{outcome}}`."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Threshold:
    """From this value on the panel has this colour; a colour below all of them is green."""

    value: float
    color: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture. `runbook` is a page of this repository, `docs/….md`, perhaps with a section."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    runbook: str
    kind: Kind = Kind.LINES
    width: int = 8
    decimals: int | None = None
    thresholds: tuple[Threshold, ...] = ()
    # Below the first threshold; red where more is better.
    base_color: str = "green"
    maximum: float | None = None

    @property
    def height(self) -> int:
        """In rows of Grafana's grid."""
        return 4 if self.kind is Kind.STAT else 8


@dataclass(frozen=True)
class Row:
    """Panels under a heading. A collapsed one asks Prometheus nothing until it is opened."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


@dataclass(frozen=True)
class Dashboard:
    """One page; `name` is its file, and its `uid` with the prefix `mpesa-`."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in their order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def runbook(alert: str) -> str:
    """The page of an alert."""
    return f"docs/runbooks/{alert}.md"


def more_is_worse(warn: float, bad: float) -> tuple[Threshold, ...]:
    """Green, then orange, then red."""
    return Threshold(warn, "orange"), Threshold(bad, "red")


def less_is_worse(good: float) -> tuple[Threshold, ...]:
    """Green from here on; give the panel the base colour red."""
    return (Threshold(good, "green"),)

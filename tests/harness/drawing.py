"""The dashboards' queries and units outside of Grafana."""

from __future__ import annotations

import re

from grafana.panels import Unit
from harness.prometheus import Series

# What Grafana would put in the place of its variables, for a run of a minute or two.
STEP_S = 1.0
_VALUES = {"$namespace": ".*", "$instance": ".*", "$__rate_interval": "20s", "$__range": "2m"}


def substituted(expr: str) -> str:
    """The expression that Grafana would send."""
    for name, value in _VALUES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def legend_text(legend: str, series: Series) -> str:
    """What Grafana writes beside a line; a label that the series lacks stays in braces."""
    return re.sub(r"\{\{ ?(\w+) ?\}\}", lambda match: series.labels.get(match[1], match[0]), legend)


def shown_value(value: float, unit: Unit, decimals: int | None) -> str:
    """A value with its unit, nearly as Grafana writes it."""
    if unit is Unit.SHARE:
        percent = value * 100
        return f"{percent:.3g} %" if decimals is None else f"{percent:.{decimals}f} %"
    if unit is Unit.SECONDS:
        return f"{_short(value * 1000)} ms" if abs(value) < 1 else f"{_short(value)} s"
    if unit is Unit.BYTES:
        return f"{value / 2**20:.0f} MiB"
    if unit is Unit.SHILLINGS:
        return f"KES {value:,.0f}"
    return _short(value) + unit.value.removeprefix("suffix:").removeprefix(Unit.COUNT.value)


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"

"""Every panel's query, asked of a real Prometheus that scraped a gateway under load."""

from __future__ import annotations

import pytest

from grafana.catalogue import DASHBOARDS
from grafana.panels import Panel
from harness.busy import Run
from harness.drawing import STEP_S, legend_text, substituted
from harness.prometheus import Series

# What may stay 0 in this run: whether a scrape sees a thread that waits is a matter of the moment.
# No merchant vanishes in it, and no lease ends early enough on a slow machine.
MAY_BE_QUIET = {
    "Pools: waiting for a connection",
    "Lost by the database",
    "Merchants without a MerchantConfig",
    "Results that came too late",
}
QUERIES = [
    pytest.param(panel, query.expr, id=f"{dashboard.name}: {panel.title}: {query.legend}")
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    for query in panel.queries
]
PANELS = [
    pytest.param(panel, id=f"{dashboard.name}: {panel.title}")
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
]


def ask(run: Run, expr: str) -> list[Series]:
    """The series that have a number in them."""
    found = run.prometheus.query_range(substituted(expr), run.start, run.end, STEP_S)
    return [it for it in found if it.values]


@pytest.mark.parametrize(("panel", "expr"), QUERIES)
def test_a_query_returns_something(run: Run, panel: Panel, expr: str) -> None:
    assert ask(run, expr), f"{panel.title}: {substituted(expr)}"


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_shows_more_than_zeros(run: Run, panel: Panel) -> None:
    """A query that always says 0 may ask for the wrong label."""
    values = [
        value for query in panel.queries for it in ask(run, query.expr) for value in it.values
    ]

    assert any(values) or panel.title in MAY_BE_QUIET


@pytest.mark.parametrize(("panel", "expr"), QUERIES)
def test_a_legend_names_labels_that_the_series_have(run: Run, panel: Panel, expr: str) -> None:
    (legend,) = (it.legend for it in panel.queries if it.expr == expr)
    for series in ask(run, expr):
        assert "{{" not in legend_text(legend, series)

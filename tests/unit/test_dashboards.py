"""The dashboards as data: current, complete, about metrics that exist, and about all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from grafana.build import REPOSITORY, to_json
from grafana.catalogue import DASHBOARDS
from grafana.panels import Dashboard, Panel
from grafana.promql import EVERY_PROCESS, VARIABLES
from harness.collecting import every_case
from mpesa_gateway.telemetry import metrics
from mpesa_operator import metrics as operator_metrics

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts" / "mpesa-gateway" / "files"
NAME = re.compile(r"\bmpesa[_:][a-zA-Z0-9_:]+")
# What prometheus_client exports of every process.
OF_EVERY_PROCESS = re.compile(r"\bprocess_[a-z_]+")
PANELS = [
    pytest.param(dashboard, panel, id=f"{dashboard.name}: {panel.title}")
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
]


def rules() -> Iterator[dict[str, Any]]:
    """Every alert and recording rule of the chart."""
    for path in sorted((FILES / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def declared() -> set[str]:
    """The metrics of gateway and operator, as Prometheus names them but for a histogram's parts."""
    found = {*metrics.AGES, *metrics.POOLS}
    for module in (metrics, operator_metrics):
        for value in vars(module).values():
            if isinstance(value, MetricWrapperBase):
                (family,) = value.describe()
                found.add(f"{family.name}_total" if family.type == "counter" else family.name)
    (merchants,) = operator_metrics.MerchantsCollector(list).collect()
    return found | {merchants.name}


def used(expr: str) -> set[str]:
    """The metrics that an expression asks for."""
    # Which processes are ours is no use of those metrics.
    names = NAME.findall(expr.replace(EVERY_PROCESS, ""))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def expressions() -> dict[str, list[str]]:
    """Every expression, by the panel or rule that has it."""
    panels = {
        f"{dashboard.name}: {panel.title}": [query.expr for query in panel.queries]
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
    }
    return panels | {it.get("alert") or it["record"]: [it["expr"]] for it in rules()}


def test_the_chart_has_what_the_code_says() -> None:
    """`make dashboards` writes it."""
    files = {path.name: path.read_text() for path in (FILES / "dashboards").glob("*.json")}

    assert files == {f"{it.name}.json": to_json(it) for it in DASHBOARDS}


def test_every_metric_is_on_a_panel_or_in_a_rule() -> None:
    asked = {name for exprs in expressions().values() for expr in exprs for name in used(expr)}

    assert declared() - asked == set()


def test_panels_and_rules_ask_for_metrics_that_exist() -> None:
    known = declared() | {it["record"] for it in rules() if "record" in it}
    unknown = {
        where: missing
        for where, exprs in expressions().items()
        if (missing := {name for expr in exprs for name in used(expr)} - known)
    }

    assert unknown == {}


@every_case(("dashboard", "panel"), PANELS)
def test_a_panel_has_unit_description_and_runbook(dashboard: Dashboard, panel: Panel) -> None:
    shown = next(it for it in shown_panels(dashboard) if it["title"] == panel.title)

    assert shown["fieldConfig"]["defaults"]["unit"]
    assert shown["description"].endswith((".", "`"))
    assert [it["refId"] for it in shown["targets"]] == ["A", "B", "C", "D"][: len(panel.queries)]
    assert all(it["expr"] and it["legendFormat"] for it in shown["targets"])
    (link,) = shown["links"]
    path, _, section = link["url"].removeprefix(REPOSITORY).partition("#")
    page = (ROOT / path).read_text()
    assert not section or section in anchors(page)


@every_case(("dashboard", "panel"), PANELS)
def test_a_query_can_come_out_empty_and_follows_the_variables(
    dashboard: Dashboard, panel: Panel
) -> None:
    """`or vector(0)` would show a healthy 0 where nothing is measured."""
    assert dashboard.name
    for query in panel.queries:
        assert "vector(" not in query.expr
        own = query.expr.replace(EVERY_PROCESS, "")
        names = NAME.findall(own) + OF_EVERY_PROCESS.findall(own)
        assert names
        assert own.count(VARIABLES) == len(names)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda it: it.name)
def test_panels_do_not_overlap(dashboard: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in shown_panels(dashboard, collapsed=False):
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda it: it.name)
def test_ids_are_given_once_and_in_order(dashboard: Dashboard) -> None:
    ids = [it["id"] for it in shown_panels(dashboard, rows=True)]

    assert all(earlier < later for earlier, later in pairwise(ids))


def test_titles_are_given_once_on_a_page() -> None:
    for dashboard in DASHBOARDS:
        titles = [panel.title for panel in dashboard.panels]
        assert len(titles) == len(set(titles))


def shown_panels(
    dashboard: Dashboard, *, collapsed: bool = True, rows: bool = False
) -> list[dict[str, Any]]:
    """The panels of the generated JSON, as Grafana reads them."""
    found: list[dict[str, Any]] = []
    for panel in json.loads(to_json(dashboard))["panels"]:
        if panel["type"] != "row" or rows:
            found.append(panel)
        if panel["type"] == "row" and collapsed:
            found += panel["panels"]
    return found


def anchors(page: str) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", it.lower()).replace(" ", "-") for it in headings}

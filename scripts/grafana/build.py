"""Turns a dashboard into Grafana's JSON with the foundation SDK."""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from grafana.panels import Dashboard, Kind, Panel, Query, Row
from grafana.promql import EVERY_PROCESS

REPOSITORY = "https://github.com/mpesa-gateway/mpesa-gateway/blob/main/"
TAG = "mpesa-gateway"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
COLUMNS = 24

_GraphPanel = stat.Panel | timeseries.Panel


def to_json(dashboard: Dashboard) -> str:
    """The file that Grafana's sidecar loads."""
    built = _build(dashboard).build()
    return json.dumps(built, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _build(dashboard: Dashboard) -> builders.Dashboard:
    built = (
        builders.Dashboard(dashboard.title)
        .uid(f"mpesa-{dashboard.name}")
        .description(dashboard.description)
        .tags([TAG])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .timezone("browser")
        .refresh("30s")
        .link(_siblings())
    )
    for variable in _variables():
        built.with_variable(variable)
    y = 0
    for row in dashboard.rows:
        y = _add_row(built, row, y)
    _number(built)
    return built


def _variables() -> list[builders.DatasourceVariable | builders.QueryVariable]:
    source = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return [
        source,
        _label_variable("namespace", "Namespace"),
        _label_variable("instance", "Process"),
    ]


def _label_variable(name: str, label: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({EVERY_PROCESS}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _siblings() -> builders.DashboardLink:
    return (
        builders.DashboardLink("M-Pesa gateway")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def _add_row(built: builders.Dashboard, row: Row, y: int) -> int:
    """Lay the panels out from left to right; the first free line below them."""
    heading = builders.Row(row.title).grid_pos(models.GridPos(h=1, w=COLUMNS, x=0, y=y))
    line, x, tallest = y + 1, 0, 0
    placed: list[_GraphPanel] = []
    for panel in row.panels:
        if x + panel.width > COLUMNS:
            line, x, tallest = line + tallest, 0, 0
        place = models.GridPos(h=panel.height, w=panel.width, x=x, y=line)
        placed.append(_panel(panel).grid_pos(place))
        x, tallest = x + panel.width, max(tallest, panel.height)
    if row.collapsed:
        heading.collapsed(True)
        for each in placed:
            heading.with_panel(each)
        built.with_row(heading)
        return y + 1
    built.with_row(heading)
    for each in placed:
        built.with_panel(each)
    return line + tallest


def _number(built: builders.Dashboard) -> None:
    """Ids that stay the same from run to run; Grafana would make its own."""
    number = 0
    for panel in built.build().panels or []:
        number += 1
        panel.id_val = number
        for inner in panel.panels if isinstance(panel, models.RowPanel) else []:
            number += 1
            inner.id_val = number


def _panel(panel: Panel) -> _GraphPanel:
    shown = _stat(panel) if panel.kind is Kind.STAT else _timeseries(panel)
    shown.title(panel.title).description(panel.description).unit(panel.unit.value)
    shown.datasource(SOURCE).links([_runbook(panel)]).thresholds(_thresholds(panel))
    if panel.decimals is not None:
        shown.decimals(panel.decimals)
    for number, query in enumerate(panel.queries):
        shown.with_target(_target(query, chr(ord("A") + number)))
    return shown


def _stat(panel: Panel) -> stat.Panel:
    last = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    colored = common.BigValueColorMode.VALUE if panel.thresholds else common.BigValueColorMode.NONE
    return (
        stat.Panel()
        .reduce_options(last)
        .color_mode(colored)
        .graph_mode(common.BigValueGraphMode.AREA)
    )


def _timeseries(panel: Panel) -> timeseries.Panel:
    legend = (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    graph = (
        timeseries.Panel()
        .legend(legend)
        .tooltip(tooltip)
        .min(0)
        .line_width(1)
        .show_points(common.VisibilityMode.NEVER)
    )
    if panel.maximum is not None:
        graph.max(panel.maximum)
    if panel.kind is Kind.STACKED:
        graph.fill_opacity(40)
        graph.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.thresholds:
        style = common_builders.GraphThresholdsStyleConfig()
        graph.thresholds_style(style.mode(common.GraphTresholdsStyleMode.DASHED))
    return graph


def _thresholds(panel: Panel) -> builders.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=panel.base_color)]
    steps += [models.Threshold(value=it.value, color=it.color) for it in panel.thresholds]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _runbook(panel: Panel) -> builders.DashboardLink:
    return (
        builders.DashboardLink("Runbook")
        .type(models.DashboardLinkType.LINK)
        .url(REPOSITORY + panel.runbook)
        .target_blank(True)
    )


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref_id).range()
    )

"""`make dashboards-preview`: each dashboard on an ordinary day, and in a busy minute."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from grafana.build import COLUMNS, to_json
from grafana.catalogue import DASHBOARDS
from grafana.panels import Dashboard, Kind, Panel
from harness.busy import Run, busy_run
from harness.drawing import STEP_S, legend_text, shown_value, substituted
from harness.ordinary import ordinary_run

ROOT = Path(__file__).resolve().parents[2]
COLUMN_INCHES, ROW_INCHES, DPI = 0.7, 0.36, 80
GAP = 0.35
COLORS = {"green": "#2e8b57", "orange": "#e69500", "red": "#c4162a"}
MOST_LEGENDS = 12


def draw(dashboard: Dashboard, run: Run, target: Path) -> None:
    """One picture: the panels where Grafana has them."""
    placed = _placed(dashboard)
    rows = max(it["gridPos"]["y"] + it["gridPos"]["h"] for it in placed) + 2
    figure = plt.figure(figsize=(COLUMNS * COLUMN_INCHES, rows * ROW_INCHES), facecolor="#f4f5f5")
    figure.suptitle(dashboard.title, fontsize=15, y=1 - 0.25 / rows, va="top")
    panels = {panel.title: panel for panel in dashboard.panels}
    for shown in placed:
        place = shown["gridPos"]
        top = 1 - (place["y"] + 1) / rows
        if shown["type"] == "row":
            figure.text(0.008, top - 0.7 / rows, shown["title"], fontsize=12, weight="bold")
            continue
        axes = figure.add_axes(
            (
                (place["x"] + GAP + 0.65) / COLUMNS,
                top - (place["h"] - GAP) / rows,
                (place["w"] - GAP - 0.8) / COLUMNS,
                (place["h"] - 1.5) / rows,
            )
        )
        _draw_panel(axes, panels[shown["title"]], run)
    figure.savefig(target, dpi=DPI)
    plt.close(figure)


def _placed(dashboard: Dashboard) -> list[dict[str, Any]]:
    """Every panel with its place; a collapsed row is opened at the end."""
    found: list[dict[str, Any]] = []
    lower = 0
    for panel in json.loads(to_json(dashboard))["panels"]:
        panel["gridPos"]["y"] += lower
        found.append(panel)
        inner = panel.get("panels") or []
        for each in inner:
            each["gridPos"]["y"] += lower
        found += inner
        if inner:
            lower += max(it["gridPos"]["y"] + it["gridPos"]["h"] for it in inner)
            lower -= panel["gridPos"]["y"] + 1
    return found


def _draw_panel(axes: Axes, panel: Panel, run: Run) -> None:
    axes.set_title(panel.title, fontsize=9, loc="left")
    for spine in axes.spines.values():
        spine.set_color("#cccccc")
    lines = [
        (legend_text(query.legend, series), series.points)
        for query in panel.queries
        for series in run.prometheus.query_range(
            substituted(query.expr), run.start, run.end, STEP_S
        )
        if series.values
    ]
    if not lines:
        axes.text(0.5, 0.5, "no data", ha="center", color="#999999", transform=axes.transAxes)
    elif panel.kind is Kind.STAT:
        _draw_stat(axes, panel, lines[0][1])
    else:
        _draw_lines(axes, panel, lines, run.start)


Points = tuple[tuple[float, float], ...]


def _draw_stat(axes: Axes, panel: Panel, points: Points) -> None:
    values = [value for _, value in points if value == value]  # noqa: PLR0124 - NaN is none
    color = panel.base_color if panel.thresholds else "black"
    for threshold in panel.thresholds:
        color = threshold.color if values[-1] >= threshold.value else color
    axes.fill_between(range(len(values)), values, min(0, *values), color="#dde6f0", lw=0)
    axes.set_xticks([])
    axes.set_yticks([])
    text = shown_value(values[-1], panel.unit, panel.decimals)
    shade = COLORS.get(color, color)
    axes.text(
        0.5,
        0.45,
        text,
        fontsize=17,
        ha="center",
        va="center",
        color=shade,
        transform=axes.transAxes,
    )


def _draw_lines(axes: Axes, panel: Panel, lines: list[tuple[str, Points]], start: float) -> None:
    if panel.kind is Kind.STACKED:
        _stack(axes, lines, start)
    else:
        for name, points in lines:
            seen = _with_gaps(points)
            axes.plot([at - start for at, _ in seen], [it for _, it in seen], lw=1, label=name)
    low, high = axes.get_ylim()
    axes.set_ylim(0, panel.maximum or max(high, low, 1e-9) * 1.02)
    for threshold in panel.thresholds:
        if threshold.value <= axes.get_ylim()[1]:
            axes.axhline(threshold.value, ls="--", lw=0.8, color=COLORS[threshold.color])
    axes.grid(visible=True, color="#eeeeee")
    axes.tick_params(labelsize=7, colors="#555555")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: shown_value(value, panel.unit, None))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[:MOST_LEGENDS],
        labels[:MOST_LEGENDS],
        fontsize=6,
        ncols=1 if len(labels) < 5 else 2,
        loc="upper left",
        framealpha=0.6,
        borderpad=0.2,
    )


def _with_gaps(points: Points) -> Points:
    """A line ends where nothing was measured: what disappears must not look like a slope."""
    found = list(points[:1])
    for before, point in pairwise(points):
        if point[0] - before[0] > 1.5 * STEP_S:
            found.append((before[0] + STEP_S, math.nan))
        found.append(point)
    return tuple(found)


def _stack(axes: Axes, lines: list[tuple[str, Points]], start: float) -> None:
    measured = sorted({at for _, points in lines for at, _ in points})
    gaps = [it for it in pairwise(measured) if it[1] - it[0] > 1.5 * STEP_S]
    # Down to nothing and up again, and no slope.
    edges = {at for left, right in gaps for at in (left + STEP_S / 9, right - STEP_S / 9)}
    times = sorted({*measured, *edges})
    heights = []
    for _, points in lines:
        values = {at: value for at, value in points if value == value}  # noqa: PLR0124 - as above
        heights.append([values.get(at, 0.0) for at in times])
    shown = [(name, row) for (name, _), row in zip(lines, heights, strict=True) if any(row)]
    axes.stackplot(
        [at - start for at in times],
        [row for _, row in shown] or [[0.0] * len(times)],
        labels=[name for name, _ in shown],
        alpha=0.6,
    )


def main() -> None:
    """Write docs/img/dashboard-*.png, or one kind of them: `ordinary` or `busy`."""
    kinds = sys.argv[1:] or list(RUNS)
    directory = ROOT / "docs" / "img"
    for kind in kinds:
        with RUNS[kind]() as run:
            for dashboard in DASHBOARDS:
                target = directory / f"dashboard-{dashboard.name}-{kind}.png"
                draw(dashboard, run, target)
                sys.stdout.write(f"{target} ({target.stat().st_size // 1024} KB)\n")


RUNS: dict[str, Callable[[], AbstractContextManager[Run]]] = {
    "ordinary": ordinary_run,
    "busy": busy_run,
}


if __name__ == "__main__":
    main()

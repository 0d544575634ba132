"""The table, the JSON and the picture of a run, and the block in docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from bench.figures import Figure

DOCS = Path(__file__).parent.parent / "docs"
COLOURS = {"beyond": "#1a7f37", "reached": "#4c8dd6", "missed": "#c93c37", "": "#8b949e"}


def machine() -> str:
    """What it was measured on, in a line."""
    model = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = next((it.split()[1] for it in _lines("/proc/meminfo")), "0")
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({model}), {int(memory) / 1024 / 1024:.0f} GiB,"
        f" {platform.system()} {platform.release()}, Python {platform.python_version()},"
        f" load {load:.1f} at the start"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def number(value: float) -> str:
    """Three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def show(figures: list[Figure]) -> None:
    """The table on the terminal."""
    table = Table("figure", "unit", "min", "median", "max", "goal", "")
    for it in figures:
        low, middle, high = (number(v) for v in (min(it.values), it.median, max(it.values)))
        table.add_row(it.name, it.unit, low, middle, high, str(it.goal or ""), it.verdict)
    Console(width=140).print(table)


def write(figures: list[Figure], notes: list[str], *, where: str, into: Path) -> None:
    """`bench.json` in that directory."""
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": where,
        "figures": [it.to_json() for it in figures],
        "notes": notes,
    }
    into.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (into / "bench.json").write_text(text, encoding="utf-8")


def publish(figures: list[Figure], notes: list[str], *, where: str, block: str) -> None:
    """Put the table into docs/performance.md, between the block's marks."""
    rows = [
        "| figure | min | median | max | goal (beyond) | |",
        "|---|---|---|---|---|---|",
        *(
            f"| {it.name}{', ' + it.unit if it.unit else ''} | {number(min(it.values))}"
            f" | **{number(it.median)}** | {number(max(it.values))} | {it.goal or ''}"
            f" | {it.verdict} |"
            for it in figures
        ),
    ]
    day = datetime.now(UTC).date().isoformat()
    head = f"{day}; {where}."
    tail = [f"- {note}" for note in notes]
    replace_block(block, "\n".join([head, "", *rows, "", *tail]).rstrip())


def replace_block(name: str, text: str) -> None:
    """What stands between `<!-- name -->` and `<!-- /name -->`."""
    page = DOCS / "performance.md"
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    before = page.read_text(encoding="utf-8")
    after, times = pattern.subn(lambda found: f"{found[1]}{text}\n{found[2]}", before)
    if times != 1:
        sys.exit(f"{page} has {times} blocks {name}, and should have one")
    page.write_text(after, encoding="utf-8")


def plot(figures: list[Figure], *, where: str) -> None:
    """docs/performance.svg: every figure with a goal as a share of its goal."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "mpesa-gateway"
    shown = [it for it in figures if it.goal is not None and it.goal.bound > 0][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(shown) + 1.6), layout="constrained")
    for row, it in enumerate(shown):
        assert it.goal is not None
        values = [_share(it, value) for value in (min(it.values), it.median, max(it.values))]
        low, middle, high = values[0], values[1], values[2]
        axes.plot([low, high], [row, row], color="#afb8c1", linewidth=5, solid_capstyle="round")
        axes.plot([middle], [row], "o", color=COLOURS[it.verdict], markersize=8)
    axes.axvline(1, color="#24292f", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [f"{it.name} ({it.goal})" for it in shown], fontsize=8)
    axes.set_xlabel("share of the goal; right of the line is better; bar: slowest to fastest round")
    day = datetime.now(UTC).date().isoformat()
    figure.suptitle(f"make bench, {day}\n{where}", fontsize=8)
    figure.savefig(DOCS / "performance.svg", metadata={"Date": None})


def _share(figure: Figure, value: float) -> float:
    assert figure.goal is not None
    bound = figure.goal.bound
    return value / bound if figure.goal.sign == "≥" else bound / max(value, 1e-9)

"""Lists and facts as text: `-o table`, `wide`, `json`, `csv` and `name`.

A table has one line a row and no borders, as `kubectl get` has: it is read where there is no
terminal (`kubectl exec` without `-it`), and there a line has 80 columns.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

Row = Mapping[str, Any]
FORMATS = ("table", "wide", "json", "csv", "name")
GAP = "  "
# Columns give up their room from the right, down to this.
NARROWEST = 6
# How many characters of an id a narrow table shows; `show` takes them where they are unique.
ID_SUFFIX = 8

_COLOURS = {
    "green": ("COMPLETED", "DELIVERED", "APPLIED", "ok", "active", "delivered"),
    "red": ("FAILED", "EXHAUSTED", "QUARANTINED", "problem", "failed", "suspended"),
    "yellow": ("PENDING", "HELD", "RECEIVED", "warning", "draining", "parked"),
}
_COLOUR_OF = {word: colour for colour, words in _COLOURS.items() for word in words}
# What a spreadsheet would run as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """One column: its title, the row's member that it shows, and how a narrow table differs."""

    title: str
    key: str
    narrow: bool = True
    short: Callable[[Any], str] | None = None


def text_of(value: Any) -> str:
    """A cell. None is empty; a line break would break the row."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    return " ".join(str(value).split())


def id_suffix(value: Any) -> str:
    """The end of an id, enough to find it again."""
    return text_of(value)[-ID_SUFFIX:]


def clock_time(value: Any) -> str:
    """`18:31:42` of an RFC 3339 time in UTC; of another day, the day too."""
    text = text_of(value)
    return text[11:19] if len(text) >= 19 else text


def print_list(
    rows: Sequence[Row], columns: Sequence[Column], output: str, *, kind: str, document: Any
) -> None:
    """Print a list in the format that was asked for.

    `document` is what JSON prints, the API's own object. The first column names the row, and is
    what `-o name` prints behind `kind/`.
    """
    if output == "json":
        click.echo(json.dumps(document, indent=2, default=str))
    elif output == "name":
        for row in rows:
            click.echo(f"{kind}/{text_of(row[columns[0].key])}")
    elif output == "csv":
        click.echo(_csv(rows, columns), nl=False)
    elif not rows:
        click.echo("nothing found")
    else:
        for line in table_lines(rows, columns, wide=output == "wide"):
            click.echo(line)


def table_lines(rows: Sequence[Row], columns: Sequence[Column], *, wide: bool) -> list[str]:
    """A header and one line a row. The whole table where it fits, else the narrow one."""
    whole = _cells(rows, columns, short=False)
    if wide or _width_of(whole) <= terminal_width():
        return _lines(whole, None)
    narrow = [column for column in columns if column.narrow]
    return _lines(_cells(rows, narrow, short=True), terminal_width())


def terminal_width() -> int:
    """Columns of the terminal, or of `COLUMNS`; 80 where there is neither."""
    return shutil.get_terminal_size((80, 24)).columns


def has_colour() -> bool:
    """Whether colours are wanted: a terminal, unless NO_COLOR or FORCE_COLOR says otherwise."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def _cells(rows: Sequence[Row], columns: Sequence[Column], *, short: bool) -> list[list[str]]:
    def cell(row: Row, column: Column) -> str:
        value = row.get(column.key)
        return column.short(value) if short and column.short else text_of(value)

    return [[it.title for it in columns], *([cell(row, it) for it in columns] for row in rows)]


def _width_of(cells: Sequence[Sequence[str]]) -> int:
    return sum(_widths(cells)) + len(GAP) * (len(cells[0]) - 1)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[number]) for row in cells) for number in range(len(cells[0]))]


def _lines(cells: Sequence[Sequence[str]], limit: int | None) -> list[str]:
    widths = _widths(cells)
    if limit is not None:
        # The last column is the longest text; what is still too wide is taken from its neighbours.
        for number in reversed(range(len(widths))):
            over = sum(widths) + len(GAP) * (len(widths) - 1) - limit
            if over > 0:
                widths[number] = max(widths[number] - over, min(widths[number], NARROWEST))
    colour = has_colour()
    return [_line(row, widths, colour=colour) for row in cells]


def _line(row: Sequence[str], widths: Sequence[int], *, colour: bool) -> str:
    parts = []
    for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
        shown = cell if len(cell) <= width else cell[: width - 1] + "…"
        last = number == len(row) - 1
        padded = shown if last else shown.ljust(width)
        style = _COLOUR_OF.get(cell) if colour else None
        parts.append(click.style(padded, fg=style) if style else padded)
    return GAP.join(parts).rstrip()


def _csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        writer.writerow([safe_cell(text_of(row.get(column.key))) for column in columns])
    return out.getvalue()


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet runs as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """A title and one `name  value` line for each fact that is known."""
    known = {name: text_of(value) for name, value in facts.items() if value not in (None, "")}
    width = max((len(name) for name in known), default=0)
    click.echo(click.style(title, bold=True) if has_colour() else title)
    for name, value in known.items():
        style = _COLOUR_OF.get(value) if has_colour() else None
        click.echo(f"  {name.ljust(width)}  {click.style(value, fg=style) if style else value}")

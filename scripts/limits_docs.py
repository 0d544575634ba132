#!/usr/bin/env python3
"""Writes the table of limits in docs/security.md from the constants of the source.

Run it after a limit has changed or is new: `.venv/bin/python scripts/limits_docs.py`.
A test compares them.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from generated_block import write_block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "security.md"
SOURCE = ROOT / "src" / "mpesa_gateway"
BEGIN, END = "<!-- limits: begin -->", "<!-- limits: end -->"
# What a constant that bounds something is called: a number, a size or a time that is not passed.
LIMIT = re.compile(
    r"(MAX|LONGEST|MOST)_\w+|(\w+_)?(LIMIT|THREADS|WAITING|PLACES|BACKLOG|TIMEOUT_S|DEADLINE_S)"
    r"|\w+_PER_MINUTE(_LISTED|_STRANGERS)?"
)


def limits() -> Iterator[tuple[str, str, str, str]]:
    """Each limit: its module, its name, its value, and what its comment says of it."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "demo" in path.relative_to(SOURCE).parts:
            continue
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for node in ast.parse(text).body:
            for name in _names(node):
                if LIMIT.fullmatch(name):
                    value = getattr(importlib.import_module(f"mpesa_gateway.{module}"), name)
                    if isinstance(value, int | float | timedelta):
                        yield module, name, _written(name, value), _comment(lines, node.lineno)


def _names(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _written(name: str, value: float | timedelta) -> str:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if name.endswith("_S"):
        return f"{value:g} s"
    for unit, size in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if value >= size and value % size == 0:
            return f"{value // size:g} {unit}" if _is_size(name) else f"{value:,}"
    return f"{value:,}"


def _is_size(name: str) -> bool:
    return "BYTES" in name or name.endswith("_LIMIT")


def _comment(lines: list[str], number: int) -> str:
    """The lines above that begin with #, as one sentence."""
    above = number - 1
    while above and lines[above - 1].startswith("#"):
        above -= 1
    words = " ".join(line.lstrip("# ").strip() for line in lines[above : number - 1])
    return words.replace("|", "\\|")


def table() -> str:
    """The whole table."""
    rows = [f"| `{module}.{name}` | {value} | {why} |" for module, name, value, why in limits()]
    return "\n".join(["| limit | value | why |", "|---|---|---|", *rows])


def main() -> None:
    """Write the table into the page."""
    write_block(PAGE, BEGIN, END, table())


if __name__ == "__main__":
    main()

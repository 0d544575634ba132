"""`python -m bench.check FILE…`: whether every part of a run worked. Nothing is judged by time.

Each part must have left its figures, none of them may be no number, nothing that was answered 200
may be missing, and no answer may have had another status than the two that are promised.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import click

# The beginning of one figure that each part cannot do without.
PARTS = (
    "callbacks/s, 64 connections",
    "callbacks/s ÷ FastAPI",
    "callbacks/s ÷ Falcon, gthread",
    "rows missing",
    "payments/s, 64 clients ÷ Go",
    "payments/s ÷ FastAPI",
    "pushes in flight",
    "callback → webhook",
    "black hole",
    "deliveries/s",
    "memory (PSS), api",
    "memory (PSS), worker",
    "burst: rows missing",
)
SCALE_PARTS = (
    "sweep: callbacks due",
    "claim a webhook",
    "by idempotency key",
    "list: status PENDING",
    "WAL per callback",
    "beside retention",
    "room per million payments",
)
# Counts that are 0, or what was answered 200 was lost, or somebody got an answer of no use.
NOTHING_OF = ("rows missing", "neither 200 nor 503", "not answered 200", "not answered 201")


def problems(content: dict[str, list[dict[str, object]]], parts: tuple[str, ...]) -> list[str]:
    """What is wrong with a run, a line each."""
    figures = {str(it["name"]): it["rounds"] for it in content["figures"]}
    found = [f"no figure `{part}…`" for part in parts if not _has(figures, part)]
    for name, rounds in figures.items():
        assert isinstance(rounds, list)
        if not rounds or not all(math.isfinite(value) for value in rounds):
            found.append(f"{name}: {rounds}")
        elif any(words in name for words in NOTHING_OF) and any(rounds):
            found.append(f"{name}: {max(rounds):g}")
    return found


def _has(figures: dict[str, object], part: str) -> bool:
    return any(name.startswith(part) for name in figures)


def main() -> int:
    """0 when all of it worked."""
    failed = 0
    for path in map(Path, sys.argv[1:]):
        parts = SCALE_PARTS if "scale" in path.parent.name else PARTS
        wrong = problems(json.loads(path.read_text(encoding="utf-8")), parts)
        failed += len(wrong)
        for line in wrong:
            click.echo(f"{path}: {line}", err=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Layer A of the crash suite, and its table: kill -9 at every failpoint of every scenario.

`make test-crash` runs it; JOBS scenarios run at a time. Arguments go to pytest, such as `-k paid`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the suite and print its table; the suite's exit status."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mpesa-crash-") as directory:
        code = subprocess.run(
            [
                ROOT / "scripts" / "pytest", "tests/crash", "--quiet",
                "--numprocesses", os.environ.get("JOBS", "2"), "--dist", "worksteal",
                *sys.argv[1:],
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "MPESA_CRASH_RESULTS": directory,
                "BIN": str(Path(sys.executable).parent),
            },
            check=False,
        ).returncode  # fmt: skip
        results = [json.loads(it.read_text()) for it in sorted(Path(directory).glob("*.json"))]
    report(results, time.monotonic() - began)
    return code


def report(results: list[dict[str, Any]], took_s: float) -> None:
    """The table that docs/reliability.md quotes."""
    head = ("scenario", "failpoints", "kill -9", "problems", "p50 s", "p99 s", "max s")
    rows = [row(it["scenario"], [it]) for it in results]
    if results:
        rows.append(row("together", results))
    widths = [max(len(str(it[n])) for it in [head, *rows]) for n in range(len(head))]
    for line in [head, ["-" * it for it in widths], *rows]:
        first, *others = (str(cell) for cell in line)
        cells = [first.ljust(widths[0])]
        cells += [it.rjust(width) for it, width in zip(others, widths[1:], strict=True)]
        print("| " + " | ".join(cells) + " |")
    print(
        "Seconds are from POST /initiate to all quiet after the death."
        f" The run took {took_s:.0f} s."
    )


def row(name: str, results: list[dict[str, Any]]) -> tuple[object, ...]:
    """One scenario, or all of them."""
    cases = [case for it in results for case in it["cases"]]
    times = sorted(case["recovery_s"] for case in cases if case["died"])
    problems = sum(bool(case["problems"]) for case in cases) + sum(
        bool(it["whole"]) for it in results
    )
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))] if times else 0.0
    p50 = statistics.median(times) if times else 0.0
    deaths = sum(case["died"] for case in cases)
    return (
        name,
        len(cases),
        deaths,
        problems,
        f"{p50:.2f}",
        f"{p99:.2f}",
        f"{max(times, default=0):.2f}",
    )


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The same payments, kills and FLUSHALLs for the gateway and for plain Huey, in two columns.

`make test-naive` runs it; SEEDS="1 2" chooses the plans, JOBS of them run at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROWS = {
    "payments": "payments asked for",
    "kills": "kill -9",
    "flushes": "FLUSHALL",
    "callbacks": "callbacks answered 200",
    "lost": "**callbacks lost**",
    "double_charged": "**customers charged twice**",
    "never_told": "**merchants never told**",
    "told_again": "told again after a fault",
    "told_again_without_id": "**told again, not to be recognised as a repeat**",
}


def main() -> int:
    """Run both columns and print them; the suite's exit status."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mpesa-naive-") as directory:
        code = subprocess.run(
            [
                sys.executable, "-m", "pytest", "tests/naive", "--quiet",
                "--numprocesses", os.environ.get("JOBS", "2"), *sys.argv[1:],
            ],
            cwd=ROOT,
            env={**os.environ, "MPESA_NAIVE_RESULTS": directory},
            check=False,
        ).returncode  # fmt: skip
        results = [json.loads(it.read_text()) for it in sorted(Path(directory).glob("*.json"))]
    report(results)
    print(f"The run took {time.monotonic() - began:.0f} s.")
    return code


def report(results: list[dict[str, Any]]) -> None:
    """The table that docs/reliability.md quotes: a column for each gateway, seeds added up."""
    gateways = sorted({it["gateway"] for it in results})
    seeds = sorted({it["seed"] for it in results})
    print(f"| seeds {', '.join(map(str, seeds))} | {' | '.join(gateways)} |")
    print("|---|" + "---:|" * len(gateways))
    for name, words in ROWS.items():
        sums = [sum(it[name] for it in results if it["gateway"] == each) for each in gateways]
        print(f"| {words} | {' | '.join(map(str, sums))} |")


if __name__ == "__main__":
    sys.exit(main())

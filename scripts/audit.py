#!/usr/bin/env python3
"""Looks up every locked package among the known vulnerabilities, with pip-audit.

pip-audit leaves out what it cannot look up and ends with 0 all the same. Here that is a failure,
unless AUDIT_UNREACHABLE=allow says that there is no network on purpose.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = (
    "locks/requirements.lock",
    "locks/requirements-dev.lock",
    "locks/requirements-bench.lock",
    "locks/requirements-docs.lock",
)
TIMEOUT_S = 300


def audit(lock: str) -> tuple[list[str], list[str], int]:
    """Vulnerabilities in words, packages that were not looked up, and how many there are."""
    command = [
        *os.environ.get("PIP_AUDIT", f"{sys.executable} -m pip_audit").split(),
        *("--requirement", str(ROOT / lock), "--require-hashes", "--disable-pip"),
        *("--format", "json", "--progress-spinner", "off"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (run.stderr.strip().splitlines() or ["no answer"])[-1]
        return [], [f"everything ({last[:200]})"], 0
    found = [
        f"{it['name']} {it['version']}: {flaw['id']}, fixed in "
        f"{', '.join(flaw.get('fix_versions') or ['no version yet'])}"
        for it in packages
        for flaw in it.get("vulns", [])
    ]
    return found, [it["name"] for it in packages if "skip_reason" in it], len(packages)


def main() -> int:
    """0 when all was looked up and nothing found, 1 when something was, 2 when not all was."""
    status = 0
    for lock in LOCKS:
        found, missed, count = audit(lock)
        for line in found:
            print(f"{lock}: {line}")
            status = 1
        if missed:
            allowed = os.environ.get("AUDIT_UNREACHABLE") == "allow"
            print(f"{lock}: not audited: no answer for {len(missed)} of {count}")
            status = status or (0 if allowed else 2)
        elif not found:
            print(f"{lock}: {count} packages, no known vulnerability")
    if status == 2:
        print("Not everything was audited: AUDIT_UNREACHABLE=allow makes that no failure.")
    return status


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Proof that the suites can fail: each bug of tests/planted must be caught by the test it names.

For each patch: a copy of the sources, the patch, and the named test, which must fail by an
assertion. First the same tests run on a copy without a patch, and must pass. `make test-planted`
runs it; JOBS patches at a time. Arguments choose patches by the beginning of their names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness.patches import Patch, read_patches  # noqa: E402 - tests/ is no installed package
from harness.planted import OTHER_CODE, REPORT_VARIABLE  # noqa: E402

# What the tests import, start, or read.
COPIED = ("src", "operator", "migrations", "tests", "pyproject.toml")
TESTS_FAILED = 1
LIMIT_S = 900
ASSERTIONS = ("AssertionError", "CasesFailedError", "Failed")


@dataclass(frozen=True)
class Run:
    """What pytest did on one copy: its exit code, one entry for each test, and its words."""

    code: int
    tests: list[dict[str, Any]]
    seconds: float
    output: str


def main() -> int:
    """Plant each bug and run what must catch it; 0 when all were caught."""
    began = time.monotonic()
    chosen = sys.argv[1:]
    patches = [
        it for it in read_patches(ROOT) if not chosen or it.path.name.startswith(tuple(chosen))
    ]
    with ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        healthy = pool.submit(run, None, sorted({it.caught_by for it in patches}))
        pending = [pool.submit(run, it, [it.caught_by]) for it in patches]
        sick = [settled(it, done.result()) for it, done in zip(patches, pending, strict=True)]
    verdicts = [verdict(it, done) for it, done in zip(patches, sick, strict=True)]
    report(patches, sick, verdicts)
    sound = settled(None, healthy.result())
    if sound.code != 0:
        print(f"Without a bug the same tests do not pass:\n{sound.output}")
    passed = sum(it["outcome"] == "passed" for it in sound.tests)
    caught = verdicts.count("")
    print(
        f"Without a bug: {passed} tests passed. Caught: {caught} of {len(patches)} bugs."
        f" The run took {time.monotonic() - began:.0f} s."
    )
    return 0 if sound.code == 0 and patches and caught == len(patches) else 1


def run(patch: Patch | None, tests: list[str]) -> Run:
    """The tests on a copy of the sources, with the patch."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mpesa-planted-") as directory:
        copy = Path(directory) / "copy"
        copy_sources(copy)
        problem = patch.apply(copy) if patch is not None else ""
        if problem:
            return Run(-1, [], 0.0, problem)
        report_file = Path(directory) / "report.json"
        code, output = pytest(copy, tests, report_file)
        found = json.loads(report_file.read_text()) if report_file.exists() else []
    name = patch.path.stem if patch is not None else "without a bug"
    print(f"{name}: pytest ended with {code}", file=sys.stderr, flush=True)
    return Run(code, found, time.monotonic() - began, output)


def settled(patch: Patch | None, done: Run) -> Run:
    """The run, or a second one of the tests of the first that ended as they should not.

    Only where MPESA_SECOND_GO names a file, as in `scripts/pytest`; the file keeps their names.
    """
    record = os.environ.get("MPESA_SECOND_GO")
    wrong = verdict(patch, done) if patch is not None else done.code
    failed = sorted({it["test"] for it in done.tests if it["outcome"] == "failed"})
    tests = [patch.caught_by] if patch is not None else failed
    if not record or not wrong or not tests:
        return done
    name = patch.path.name if patch is not None else "without a bug"
    with Path(record).open("a") as again:
        again.write(f"planted bugs, {name}: {', '.join(tests)}\n")
    second = run(patch, tests)
    return second if patch is not None else replace(second, tests=done.tests)


def copy_sources(copy: Path) -> None:
    """What the tests of one bug need, in a directory of its own."""
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)


def pytest(copy: Path, tests: list[str], report_file: Path) -> tuple[int, str]:
    """Its exit code, and the end of its output. The copy's code comes before what is installed."""
    path = os.pathsep.join(str(copy / it) for it in ("src", "operator", "tests"))
    command = [
        sys.executable, "-m", "pytest", *tests, "--quiet", "--tb=short",
        "-p", "harness.planted", "-p", "no:cacheprovider",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": path, REPORT_VARIABLE: str(report_file)}
    env.pop("MPESA_CRASH_RESULTS", None)
    try:
        done = subprocess.run(
            command, cwd=copy, env=env, check=False, timeout=LIMIT_S, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return -1, f"pytest did not end within {LIMIT_S} s"
    return done.returncode, "\n".join((done.stdout + done.stderr).splitlines()[-40:])


def verdict(patch: Patch, done: Run) -> str:
    """Why the bug does not count as caught; empty when it was."""
    failed = [it for it in done.tests if it["outcome"] == "failed"]
    if done.code == -1:
        return done.output
    if done.code == OTHER_CODE:
        return f"the tests did not import the patched code:\n{done.output}"
    if done.code == 0:
        return f"not caught: {patch.caught_by} passes with the bug"
    if done.code != TESTS_FAILED or not failed:
        return f"pytest ended with {done.code}, no test failed:\n{done.output}"
    strange = [it for it in failed if it["when"] != "call" or it["error"] not in ASSERTIONS]
    if strange:
        return f"failed by something else than an assertion: {strange}\n{done.output}"
    return ""


def report(patches: list[Patch], runs: list[Run], verdicts: list[str]) -> None:
    """The table that docs/reliability.md quotes."""
    print("| planted bug | caught by | which said | after s |\n|---|---|---|---|")
    for patch, done, problem in zip(patches, runs, verdicts, strict=True):
        failed = [it for it in done.tests if it["outcome"] == "failed"]
        says = "NOT CAUGHT" if problem else failed[0]["says"].replace("|", "\\|")[:100]
        where = patch.caught_by.split("::", 1)
        print(f"| {patch.bug} | `{where[0]}` {where[1]} | {says} | {done.seconds:.1f} |")
    for patch, problem in zip(patches, verdicts, strict=True):
        if problem:
            print(f"\n{patch.path.name}: {problem}")


if __name__ == "__main__":
    sys.exit(main())

"""A pytest plugin for scripts/planted_suite.py: which code ran, and how each test failed.

Loaded with `-p harness.planted`, from a copy of the sources. It refuses to run when this process,
or one that the tests would start, would import the code of another place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import daraja_simulator
import mpesa_gateway
from mpesa_devkit.processes import clean_env

REPORT_VARIABLE = "PLANTED_REPORT"
OTHER_CODE = 90
_SHOW = "import mpesa_gateway, daraja_simulator as d; print(mpesa_gateway.__file__, d.__file__)"
_results: list[dict[str, Any]] = []


def pytest_sessionstart(session: pytest.Session) -> None:
    """The code under test is the copy's, here and in every process that is started from here."""
    root = session.config.rootpath
    files = [str(mpesa_gateway.__file__), str(daraja_simulator.__file__), *_files_of_a_child()]
    strange = [file for file in files if not Path(file).is_relative_to(root / "src")]
    if strange:
        pytest.exit(f"not the code of {root}: {strange}", returncode=OTHER_CODE)


def _files_of_a_child() -> list[str]:
    """As `harness.processes` starts one: its environment, and not in the checkout."""
    child = subprocess.run(
        [sys.executable, "-c", _SHOW],
        cwd=tempfile.gettempdir(),
        env=clean_env({}),
        check=True,
        capture_output=True,
        text=True,
    )
    return child.stdout.split()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the phase and the kind of each failure."""
    report = yield
    error = call.excinfo
    if report.when == "call" or report.failed:
        _results.append(
            {
                "test": item.nodeid,
                "when": report.when,
                "outcome": report.outcome,
                "error": error.type.__name__ if error is not None else None,
                "says": _first_line(error),
                "seconds": round(report.duration, 2),
            }
        )
    return report


def _first_line(error: pytest.ExceptionInfo[BaseException] | None) -> str:
    if error is None:
        return ""
    lines = str(error.value).splitlines()
    return lines[0] if lines else ""


def pytest_sessionfinish() -> None:
    """For scripts/test-planted."""
    path = os.environ.get(REPORT_VARIABLE)
    if path:
        Path(path).write_text(json.dumps(_results))

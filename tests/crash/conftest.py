"""A stack of its own for each scenario; what each case came to is kept for the table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.crash import CrashStack, crash_stack

Keep = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def stack(own_directory: Path, database_url: str, redis_url: str) -> Iterator[CrashStack]:
    with crash_stack(own_directory, database_url, redis_url) as running:
        yield running


@pytest.fixture
def keep() -> Keep:
    """Write a result where scripts/crash_suite.py finds it for the table."""
    directory = os.environ.get("MPESA_CRASH_RESULTS")

    def write(name: str, result: dict[str, Any]) -> None:
        if directory:
            file = Path(directory) / f"{name.replace(' ', '-')}.json"
            file.write_text(json.dumps(result))

    return write

"""One gateway that has seen everything, for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.busy import Run, busy_run


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    with busy_run() as seen:
        yield seen

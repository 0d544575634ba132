"""Namespaces of a real API server, and the schemas of what it knows."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import shell
from harness.helm import need_cluster, need_helm
from harness.schemas import write_schemas

_NUMBERS = itertools.count(1)


@pytest.fixture(autouse=True)
def helm() -> None:
    """Every test here needs it."""
    need_helm()


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of the test's own; deleted at the end, not waited for."""
    need_cluster()
    name = f"chart-test-{os.getpid()}-{next(_NUMBERS)}"
    shell.output("kubectl", "create", "namespace", name)
    yield name
    shell.output("kubectl", "delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON schemas of every kind that the API server serves."""
    need_cluster()
    directory = tmp_path_factory.mktemp("schemas")
    write_schemas(shell.output("kubectl", "get", "--raw", "/openapi/v2"), directory)
    return directory

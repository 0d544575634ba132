"""One developer's stack for all pages of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.dev_stack import DevStack, dev_stack


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """What `mpesa-gateway dev` starts."""
    with dev_stack(tmp_path_factory.mktemp("dev")) as running:
        yield running

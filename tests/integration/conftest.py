"""What the tests of the inbox begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.inbox import InboxHarness
from mpesa_gateway.store.pool import Pool


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    opened = Pool(database_url, size=4, name="test")
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def harness(pool: Pool) -> Iterator[InboxHarness]:
    """With an inbox that is started."""
    made = InboxHarness(pool)
    made.inbox.start()
    yield made
    made.inbox.stop()
    assert not made.inbox.is_alive()

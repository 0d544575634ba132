"""Payments and callbacks at a steady rate against a release, from within the cluster."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.books import Books, open_books
from harness.neighbour import Neighbour
from harness.release import Release
from harness.waiting import wait_for

# As many initiates a second; each makes Safaricom post a callback, and as many more are
# duplicates that the clients post themselves.
RATE = 20.0
# What must have been seen before a test begins to disturb.
WARM_CALLBACKS = 40
# Phones are never used twice: 4,000 payments for each load of a session.
_FIRST_PHONES = itertools.count(10_000, 4_000)


@dataclass
class Load:
    """A load that runs; `books` are there once it has ended."""

    release: Release
    shop: Neighbour
    simulator: str
    since: int
    report: dict[str, Any] = field(default_factory=dict)
    _books: Books | None = None

    @property
    def books(self) -> Books:
        assert self._books is not None, "the load still runs"
        return self._books

    def callbacks(self) -> int:
        """How many the clients have posted so far."""
        return len(self.shop.report()["callbacks"])

    def go_on(self, seconds: float) -> None:
        """So long, while nothing is disturbed: measured in callbacks, not slept for luck."""
        wanted = self.callbacks() + int(seconds * RATE)
        wait_for(lambda: self.callbacks() >= wanted, timeout_s=3 * seconds + 10, what="the load")

    def end(self) -> None:
        """Stop, and read everything once all has settled."""
        self.report = self.shop.stop()
        self._books = open_books(self.release, self.shop, self.simulator, self.report, self.since)


@contextmanager
def load(release: Release, shop: Neighbour, simulator: str) -> Iterator[Load]:
    """Under way when the block begins, ended and settled when it is left."""
    since = shop.fetch("GET", f"{simulator}/ledger?phone=none").json()["sequence"]
    running = Load(release, shop, simulator, since)
    shop.start(
        gateway=release.api_url,
        api_key=release.api_key,
        simulator=simulator,
        initiates=RATE,
        callbacks=RATE,
        first_phone=next(_FIRST_PHONES),
        since=since,
    )
    try:
        wait_for(lambda: running.callbacks() >= WARM_CALLBACKS, what="the load to begin")
        yield running
    except BaseException:
        shop.stop()
        raise
    running.end()


def rates(report: dict[str, Any]) -> tuple[float, float]:
    """How many initiates and callbacks a second there really were."""
    started = [it["started"] for it in report["initiates"]]
    span = max(started) - min(started)
    direct = [it["started"] for it in report["callbacks"]]
    return len(started) / span, len(direct) / (max(direct) - min(direct))

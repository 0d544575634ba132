"""A merchant names its base URL: one that never answers holds up only that merchant's queries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from harness.waiting import wait_for
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.usecases.queries import MOST_QUERIES
from mpesa_gateway.usecases.room import Room

HOSTILE = "key-of-the-hostile"


@contextmanager
def full_room(room: Room, merchant: str) -> Iterator[int]:
    """Calls of a merchant that hang until the end; how many got in."""
    release, entered = threading.Event(), list[bool]()

    def call() -> None:
        with room.enter(merchant) as inside:
            entered.append(inside)
            release.wait(60)

    threads = [threading.Thread(target=call) for _ in range(2 * MOST_QUERIES)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(entered) == len(threads))
        yield entered.count(True)
    finally:
        release.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def shops(gateways: Gateways, tmp_path: Path) -> Iterator[Gateway]:
    write_merchant(tmp_path, name="shops/hostile", key=HOSTILE)
    with gateways.start(merchants_dir=str(tmp_path)) as gateway:
        yield gateway


def test_queries_of_one_merchant_that_hang_leave_room_for_another_s(shops: Gateway) -> None:
    shops.pay("254712344042")
    hostile = shops.initiate("254722344042", key=HOSTILE)
    assert hostile.status_code == 201, hostile.text
    shops.clock.advance(minutes=2)
    rows = {it["merchant"]: it["id"] for it in shops.rows("SELECT id, merchant FROM transactions")}
    with full_room(shops.services.queries.room, "shops/hostile") as inside:
        assert inside == MOST_QUERIES // 2
        for row in rows.values():
            shops.dispatcher.run(Work(WorkKind.QUERY, row))
    asked = shops.rows("SELECT transaction_id FROM transaction_events WHERE source = 'query'")
    assert [it["transaction_id"] for it in asked] == [rows["default"]]
    (turned_away,) = shops.rows(
        "SELECT next_query_at, query_lease_until FROM transactions WHERE id = %s",
        rows["shops/hostile"],
    )
    assert turned_away["next_query_at"] > shops.clock(), "it is asked later"
    assert turned_away["query_lease_until"] is None

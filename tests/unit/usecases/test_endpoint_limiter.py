"""Slots for webhook attempts: shared by merchant first, by endpoint second."""

from __future__ import annotations

import itertools

import pytest

from harness.collecting import every_case
from mpesa_gateway.domain.shares import Tenancy
from mpesa_gateway.usecases.endpoint_limiter import (
    MAX_DEFERRED,
    MAX_DEFERRED_PER_ENDPOINT,
    SLOW_S,
    Endpoint,
    EndpointLimiter,
    Slots,
    threads_for,
)


class Rig:
    """A limiter with a clock of its own, and endpoints that answer when they are told to."""

    def __init__(self, slots: Slots, *, alone: bool = False) -> None:
        self.now = 0.0
        tenancy = Tenancy.ONE_MERCHANT if alone else Tenancy.MANY
        self.limiter = EndpointLimiter(slots, tenancy=lambda: tenancy, time_s=lambda: self.now)
        self._ids = itertools.count(1)

    def start(self, merchant: str, origin: str = "https://shop.example", **state: bool) -> bool:
        """Whether a new delivery gets a slot."""
        failing = state.get("failing", False)
        return self.limiter.try_acquire(
            Endpoint(merchant, origin), next(self._ids), failing=failing
        )

    def flood(self, merchant: str, origins: int = 200) -> int:
        """How many slots a merchant gets with one delivery for each of its endpoints."""
        return sum(self.start(merchant, f"https://{number}.example") for number in range(origins))

    def settle(self, merchant: str) -> int:
        """The same, with attempts that never end: how many it holds at last."""
        held = self.flood(merchant)
        for _ in range(50):
            self.now += SLOW_S
            handed_back = self.limiter.next_deferred()
            held += len(handed_back)
            for delivery_id in handed_back:
                endpoint = self.limiter._reserved[delivery_id]
                assert self.limiter.try_acquire(endpoint, delivery_id, failing=False)
        return held


@every_case("concurrency", [1, 2, 3, 4, 6, 10, 40, 256])
def test_a_merchant_with_200_black_holes_leaves_slots_to_the_others(concurrency: int) -> None:
    slots = Slots.of(concurrency)
    rig = Rig(slots)
    assert rig.flood("hostile") == slots.fast // 2, "of those that are fast so far"
    assert rig.start("victim"), "at once"
    rig.limiter.release(Endpoint("victim", "https://shop.example"))
    assert slots.all // 2 - 1 <= rig.settle("hostile") + slots.fast // 2 <= slots.all // 2 + 1
    assert [rig.start("victim") for _ in range(2)] == [True, True]


@every_case("concurrency", [1, 2, 3, 4, 6, 10, 40, 256])
def test_a_namespace_of_fifty_hostile_merchants_leaves_slots_to_the_others(
    concurrency: int,
) -> None:
    slots = Slots.of(concurrency)
    rig = Rig(slots)
    held = sum(rig.settle(f"hostile/{number}") for number in range(50))
    assert held <= slots.all * 2 // 3
    assert [rig.start("victim/shop"), rig.start("victim/shop")] == [True, True]


def test_the_share_of_a_merchant_does_not_grow_with_its_endpoints() -> None:
    few, many = Rig(Slots.of(10)), Rig(Slots.of(10))
    assert few.flood("hostile", origins=4) == many.flood("hostile", origins=4000) == 4


def test_several_hostile_merchants_leave_a_slot_too() -> None:
    rig = Rig(Slots.of(10))
    for number in range(3):
        rig.settle(f"hostile {number}")
    assert rig.start("victim")


def test_the_only_merchant_gets_all_slots_and_an_endpoint_two_thirds() -> None:
    rig = Rig(Slots.of(10), alone=True)
    assert [rig.start("only", "https://slow.example") for _ in range(6)] == [True] * 5 + [False]
    assert [rig.start("only", "https://fast.example") for _ in range(4)] == [True] * 3 + [False]


def test_slots_go_to_each_merchant_in_turn_and_then_to_each_endpoint() -> None:
    rig = Rig(Slots(fast=1, all=1), alone=True)
    running = Endpoint("m", "x")
    assert rig.limiter.try_acquire(running, 0, failing=False)
    wanted = {1: ("a", "1"), 2: ("a", "1"), 3: ("a", "2"), 4: ("b", "1"), 5: ("b", "1")}
    for delivery_id, (merchant, origin) in wanted.items():
        endpoint = Endpoint(merchant, origin)
        assert not rig.limiter.try_acquire(endpoint, delivery_id, failing=False)
    order = []
    while handed_back := rig.limiter.release(running):
        order += handed_back
        (delivery_id,) = handed_back
        running = Endpoint(*wanted[delivery_id])
        assert rig.limiter.try_acquire(running, delivery_id, failing=False)
    assert order == [1, 4, 3, 5, 2]


def test_an_endpoint_that_failed_is_attempted_one_at_a_time() -> None:
    limiter, endpoint = EndpointLimiter(Slots.of(10)), Endpoint("m", "failing")
    assert limiter.try_acquire(endpoint, 1, failing=True)
    assert not limiter.try_acquire(endpoint, 2, failing=True)
    assert limiter.release(endpoint) == [2]
    assert limiter.try_acquire(endpoint, 2, failing=True)
    assert limiter.release(endpoint) == []
    assert limiter._failing == set()


def test_endpoints_with_one_name_are_two_where_they_belong_to_two_merchants() -> None:
    limiter = EndpointLimiter(Slots.of(10))
    assert limiter.try_acquire(Endpoint("a", "https://x.example"), 1, failing=True)
    assert limiter.try_acquire(Endpoint("b", "https://x.example"), 2, failing=True)


def test_a_reserved_slot_is_claimed_or_goes_to_another() -> None:
    limiter, endpoint = (
        EndpointLimiter(Slots(1, 1), tenancy=lambda: Tenancy.ONE_MERCHANT),
        Endpoint("m", "x"),
    )
    assert limiter.try_acquire(endpoint, 1, failing=False)
    for delivery_id in (2, 3):
        assert not limiter.try_acquire(endpoint, delivery_id, failing=False)
        assert limiter.is_deferred(delivery_id)
    assert limiter.release(endpoint) == [2]
    assert (limiter.is_reserved(2), limiter.is_deferred(2)) == (True, False)
    assert not limiter.try_acquire(endpoint, 4, failing=False), "the slot is reserved"
    assert limiter.cancel(2) == [3]
    assert limiter.cancel(2) == []
    assert limiter.try_acquire(endpoint, 3, failing=False)
    assert not limiter.is_reserved(3)


def test_attempts_that_turned_slow_leave_their_slots_to_fast_ones() -> None:
    rig = Rig(Slots(fast=4, all=10), alone=True)
    assert [rig.start("m", f"{it}") for it in range(5)] == [True] * 4 + [False]
    assert rig.limiter.next_deferred() == []
    rig.now += SLOW_S
    assert rig.limiter.next_deferred() == [5]


def test_a_deferred_delivery_is_remembered_once() -> None:
    rig = Rig(Slots(1, 1), alone=True)
    endpoint = Endpoint("m", "x")
    assert rig.limiter.try_acquire(endpoint, 1, failing=False)
    for _ in range(3):
        assert not rig.limiter.try_acquire(endpoint, 2, failing=False)
    assert rig.limiter.release(endpoint) == [2]
    assert rig.limiter.cancel(2) == []


@pytest.mark.parametrize("origins", [1, 20_000])
def test_what_is_remembered_is_bounded_and_shared(origins: int) -> None:
    rig = Rig(Slots(0, 0))
    rig.flood("hostile", origins) if origins > 1 else [rig.start("hostile") for _ in range(20_000)]
    assert len(rig.limiter._deferred_ids) == min(
        MAX_DEFERRED // 2, MAX_DEFERRED_PER_ENDPOINT if origins == 1 else MAX_DEFERRED
    )
    assert not rig.limiter.try_acquire(Endpoint("victim", "x"), -1, failing=False)
    assert rig.limiter.is_deferred(-1)


@pytest.mark.parametrize("concurrency", [1, 2, 10, 50])
def test_slow_attempts_leave_threads_for_callbacks(concurrency: int) -> None:
    rig = Rig(Slots.of(concurrency), alone=True)
    assert rig.settle("only") <= threads_for(concurrency) - 2


def test_the_number_of_slots_is_the_same_for_every_small_worker() -> None:
    assert {Slots.of(concurrency) for concurrency in range(1, 11)} == {Slots(fast=8, all=18)}

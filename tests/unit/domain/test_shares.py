from __future__ import annotations

import pytest

from harness.collecting import every_case
from mpesa_gateway.domain.shares import Shares, may_take


def fill(shares: Shares, merchant: str, *, alone: bool = False) -> int:
    """How many places a merchant gets that takes all it can."""
    taken = 0
    while shares.take(merchant, alone=alone):
        taken += 1
    return taken


@every_case("places", range(1, 40))
def test_one_merchant_leaves_as_much_as_it_takes_and_the_next_one_too(places: int) -> None:
    shares = Shares(places)
    for number in range(5):
        free = places - sum(shares.held_by(f"{it}") for it in range(number))
        assert fill(shares, f"{number}") == (free + 1) // 2


def test_a_merchant_that_is_alone_leaves_nothing() -> None:
    shares = Shares(5)
    assert fill(shares, "only", alone=True) == 5
    assert not shares.has_room("only", alone=True)


def test_a_place_that_is_given_back_goes_to_who_holds_fewer() -> None:
    shares = Shares(8)
    assert (fill(shares, "hostile"), fill(shares, "other")) == (4, 2)
    shares.give_back("hostile")
    assert not shares.has_room("hostile")
    assert shares.take("other")


def test_nobody_is_remembered_who_holds_nothing() -> None:
    shares = Shares(2)
    assert shares.take("shop")
    shares.give_back("shop")
    assert (shares.held_by("shop"), shares._held) == (0, {})
    with pytest.raises(AssertionError):
        shares.give_back("shop")


def test_nothing_is_taken_of_nothing() -> None:
    assert not may_take(held=0, free=0)
    assert not may_take(held=0, free=0, alone=True)
    assert not may_take(held=0, free=-1)

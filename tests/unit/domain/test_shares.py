from __future__ import annotations

import pytest

from harness.collecting import every_case
from mpesa_gateway.domain.shares import Shares, Tenancy, may_take, namespace_of


def fill(shares: Shares, merchant: str, tenancy: Tenancy = Tenancy.MANY) -> int:
    """How many places a merchant gets that takes all it can."""
    taken = 0
    while shares.take(merchant, tenancy):
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
    assert fill(shares, "only", Tenancy.ONE_MERCHANT) == 5
    assert not shares.has_room("only", Tenancy.ONE_MERCHANT)


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
    assert (shares.held_by("shop"), shares._held, shares._of_namespace) == (0, {}, {})
    with pytest.raises(AssertionError):
        shares.give_back("shop")


@every_case("places", range(2, 200))
def test_a_namespace_full_of_hostile_merchants_leaves_a_third_and_never_nothing(
    places: int,
) -> None:
    """Each of its 50 merchants takes all it can, again and again."""
    shares = Shares(places)
    hostile = sum(fill(shares, f"hostile/{number % 50}") for number in range(150))
    assert hostile <= max(1, places * 2 // 3)
    assert fill(shares, "victim/shop") >= max(1, (places - hostile) // 2)


def test_the_namespace_plays_no_part_where_there_is_one() -> None:
    shares = Shares(128)
    taken = [fill(shares, f"team/{it}", Tenancy.ONE_NAMESPACE) for it in range(8)]
    assert taken == [64, 32, 16, 8, 4, 2, 1, 1]


@every_case("places", range(1, 200))
def test_the_namespace_takes_nothing_from_its_only_merchant(places: int) -> None:
    assert fill(Shares(places), "team/shop") == fill(
        Shares(places), "team/shop", Tenancy.ONE_NAMESPACE
    )


def test_a_namespace_is_not_mixed_up_with_a_merchant_of_its_name() -> None:
    assert namespace_of("default/shop") == "default/" != namespace_of("default") == "default"
    assert namespace_of("team/shop") == namespace_of("team/other")


def test_nothing_is_taken_of_nothing() -> None:
    assert not may_take(held=0, of_namespace=0, free=0)
    assert not may_take(held=0, of_namespace=0, free=0, tenancy=Tenancy.ONE_MERCHANT)
    assert not may_take(held=0, of_namespace=0, free=-1)

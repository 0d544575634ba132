"""Allowlists: what both allow, and the copy that people read."""

from __future__ import annotations

import ipaddress
import json

from hypothesis import given
from hypothesis import strategies as st

from mpesa_gateway.domain.merchant import Network, is_allowed, parse_networks
from mpesa_operator.allowlist import intersect, list_hash, ordered, readable_copy


def nets(*texts: str) -> tuple[Network, ...]:
    return parse_networks(list(texts))


def test_the_narrower_of_two_that_are_nested() -> None:
    assert intersect(nets("10.0.0.0/8"), nets("10.1.0.0/16", "192.168.0.0/16")) == nets(
        "10.1.0.0/16"
    )
    assert intersect(nets("10.1.2.0/24"), nets("10.1.0.0/16")) == nets("10.1.2.0/24")


def test_two_that_are_apart_or_of_different_kind_share_nothing() -> None:
    assert intersect(nets("10.0.0.0/8"), nets("11.0.0.0/8", "2c0f::/16")) == ()


def test_without_a_platform_list_all_that_is_wanted() -> None:
    assert intersect(nets("10.0.0.0/8", "10.0.0.0/8"), ()) == nets("10.0.0.0/8")


def networks() -> st.SearchStrategy[tuple[Network, ...]]:
    one = st.builds(
        lambda address, length: ipaddress.ip_network((address, length), strict=False),
        st.integers(0x0A000000, 0x0A0000FF),
        st.integers(22, 32),
    )
    return st.lists(one, min_size=1, max_size=4).map(tuple)


@given(networks(), networks(), st.integers(0x0A000000, 0x0A0000FF))
def test_an_address_is_in_the_result_when_it_is_in_both(
    one: tuple[Network, ...], other: tuple[Network, ...], number: int
) -> None:
    address = ipaddress.IPv4Address(number)
    both = intersect(one, other)
    inside = bool(both) and is_allowed(address, both)
    assert inside == is_allowed(address, one, other)


def test_order_and_repeats_do_not_change_a_hash() -> None:
    one, other = nets("2c0f::/16", "10.0.0.0/8"), nets("10.0.0.0/8", "2c0f::/16", "10.0.0.0/8")
    assert ordered(one) == ordered(other) == nets("10.0.0.0/8", "2c0f::/16")
    assert list_hash(one) == list_hash(other)
    assert list_hash(one) != list_hash(nets("10.0.0.0/8"))


def test_the_copy_has_the_union_and_the_counts() -> None:
    merchants = {"b/two": nets("10.1.2.0/24", "10.1.3.0/24"), "a/one": ()}
    data = readable_copy(nets("10.1.0.0/16"), merchants)
    assert data["cidrs"].splitlines() == ["10.1.0.0/16", "10.1.2.0/24", "10.1.3.0/24"]
    assert json.loads(data["merchants.json"]) == {"a/one": 1, "b/two": 2}
    assert data["unrestricted"] == "false"


def test_the_copy_says_when_somebody_has_no_list_at_all() -> None:
    assert readable_copy((), {"a/one": ()})["unrestricted"] == "true"
    assert readable_copy((), {})["unrestricted"] == "true"
    assert readable_copy((), {"a/one": nets("10.0.0.0/8")})["unrestricted"] == "false"

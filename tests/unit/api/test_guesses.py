"""The bucket of unmatched callbacks of each address: refilled by time, bounded in number."""

from __future__ import annotations

import ipaddress

import pytest

from mpesa_gateway.api.guesses import (
    MAX_ADDRESSES,
    UNMATCHED_PER_MINUTE,
    UNMATCHED_PER_MINUTE_LISTED,
    Guesses,
)
from mpesa_gateway.domain.merchant import Address, parse_networks
from mpesa_gateway.errors import RateLimitedError

STRANGER = ipaddress.ip_address("198.51.100.7")
SAFARICOM = ipaddress.ip_address("196.201.214.200")


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def brought(guesses: Guesses, address: Address) -> int:
    """How many are taken before one is refused."""
    for number in range(100_000):
        try:
            guesses.count(address)
        except RateLimitedError:
            return number
    raise AssertionError("there is no limit")


def test_a_minute_refills_it_and_no_more_than_that() -> None:
    clock = Seconds()
    guesses = Guesses((), clock)
    assert brought(guesses, STRANGER) == UNMATCHED_PER_MINUTE
    with pytest.raises(RateLimitedError):
        guesses.check(STRANGER)
    clock.now += 60 / UNMATCHED_PER_MINUTE
    guesses.check(STRANGER)
    assert brought(guesses, STRANGER) == 1
    clock.now += 86_400
    assert brought(guesses, STRANGER) == UNMATCHED_PER_MINUTE


def test_who_is_listed_may_bring_more() -> None:
    guesses = Guesses(parse_networks(["196.201.214.0/24"]), Seconds())

    assert brought(guesses, SAFARICOM) == UNMATCHED_PER_MINUTE_LISTED
    assert brought(guesses, STRANGER) == UNMATCHED_PER_MINUTE


def test_the_addresses_that_are_remembered_are_bounded() -> None:
    guesses = Guesses(parse_networks(["::/0"]), Seconds())
    for number in range(2 * MAX_ADDRESSES):
        guesses.count(ipaddress.IPv6Address(number << 64))

    assert len(guesses._buckets) == MAX_ADDRESSES

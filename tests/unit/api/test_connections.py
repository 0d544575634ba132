"""Who may connect when places are few."""

from __future__ import annotations

import asyncio

from mpesa_gateway.api.connections import (
    KEPT_PLACES,
    MAX_CONNECTIONS,
    MAX_PER_ADDRESS,
    Connections,
)
from mpesa_gateway.api.life import STUCK_AFTER_S, Life
from mpesa_gateway.domain.merchant import parse_networks

SAFARICOM, PROXY = "196.201.214.200", "10.244.7.3"
LISTED, TRUSTED = parse_networks(["196.201.214.0/24"]), parse_networks([PROXY])


def admitted(connections: Connections, peer: str, tries: int = MAX_CONNECTIONS + 1) -> int:
    return sum(connections.admit(peer) for _ in range(tries))


def test_one_address_has_a_share_and_ipv6_one_for_each_64() -> None:
    connections = Connections(listed=(), trusted=())

    assert admitted(connections, "198.51.100.7") == MAX_PER_ADDRESS
    assert admitted(connections, "::ffff:198.51.100.7") == 0
    assert admitted(connections, "2a00:1450::1") == MAX_PER_ADDRESS
    assert admitted(connections, "2a00:1450::2") == 0
    connections.leave("198.51.100.7")
    assert admitted(connections, "198.51.100.7") == 1


def test_strangers_leave_places_to_safaricom_and_to_the_proxy() -> None:
    connections = Connections(listed=LISTED, trusted=TRUSTED)
    strangers = sum(admitted(connections, f"198.51.100.{it}", MAX_PER_ADDRESS) for it in range(9))

    assert strangers == MAX_CONNECTIONS - KEPT_PLACES
    assert admitted(connections, SAFARICOM, 10) == 10
    assert admitted(connections, PROXY) == KEPT_PLACES - 10
    assert admitted(connections, SAFARICOM) == 0


def test_a_trusted_proxy_has_no_share() -> None:
    assert admitted(Connections(listed=(), trusted=TRUSTED), PROXY) == MAX_CONNECTIONS


def test_what_left_is_forgotten() -> None:
    connections = Connections(listed=(), trusted=())
    for peer in ("198.51.100.7", "fe80::1%eth0"):
        assert connections.admit(peer)
        connections.leave(peer)

    assert not connections._by_address
    assert connections._total == 0


def test_a_loop_that_does_not_turn_is_not_live() -> None:
    now = 100.0
    works = True
    life = Life(lambda: now)
    assert life.is_live()

    async def begin() -> None:
        life.begin(lambda: works)

    asyncio.run(begin())
    assert life.is_live()
    now += STUCK_AFTER_S
    assert not life.is_live()
    now -= 1
    works = False
    assert not life.is_live()

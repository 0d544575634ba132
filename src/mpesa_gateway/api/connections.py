"""Who may connect when places are few: a share for each address, and some kept for Safaricom."""

from __future__ import annotations

import ipaddress
from collections import Counter

from mpesa_gateway.api.addresses import AddressGroup, group_of
from mpesa_gateway.domain.merchant import Address, Network, is_allowed

# Where the server's state has it, for each connection to find.
CONNECTIONS = "connection_limits"
MAX_CONNECTIONS = 4096
# Of one address (IPv6: a /64) that is no trusted proxy. A merchant's server has some hundred, with
# those that wait for a payment.
MAX_PER_ADDRESS = 1024
# Kept for the addresses of the platform's allowlist and of trusted proxies, where there are any.
KEPT_PLACES = 512


class Connections:
    """Counts connections. All calls belong to the event loop's thread."""

    def __init__(
        self,
        *,
        listed: tuple[Network, ...],
        trusted: tuple[Network, ...],
        most: int = MAX_CONNECTIONS,
    ) -> None:
        self._listed = listed
        self._trusted = trusted
        self._most = most
        self._total = 0
        self._by_address: Counter[AddressGroup] = Counter()

    def admit(self, peer: str) -> bool:
        """Whether there is a place. Each admitted one must `leave`."""
        address = _address(peer)
        group = group_of(address)
        if not self._has_place(address, group):
            return False
        self._total += 1
        self._by_address[group] += 1
        return True

    def leave(self, peer: str) -> None:
        """One that was admitted is gone."""
        group = group_of(_address(peer))
        self._total -= 1
        self._by_address[group] -= 1
        if not self._by_address[group]:
            del self._by_address[group]

    def _has_place(self, address: Address, group: AddressGroup) -> bool:
        is_proxy = bool(self._trusted) and is_allowed(address, self._trusted)
        if not is_proxy and self._by_address[group] >= MAX_PER_ADDRESS:
            return False
        is_expected = is_proxy or (bool(self._listed) and is_allowed(address, self._listed))
        kept = KEPT_PLACES if (self._listed or self._trusted) and not is_expected else 0
        return self._total < self._most - kept


def _address(peer: str) -> Address:
    """The peer as the kernel names it; an IPv4 address on a socket of both families is one."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address

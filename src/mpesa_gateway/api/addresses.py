"""What counts as one address where each has a limit of its own."""

from __future__ import annotations

import ipaddress

from mpesa_gateway.domain.merchant import Address, Network

AddressGroup = Address | Network
# One customer of a provider has a /64 of IPv6 at least, and any address in it.
V6_PREFIX = 64


def group_of(address: Address) -> AddressGroup:
    """The address itself; of IPv6 its /64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return ipaddress.IPv6Network((int(address), V6_PREFIX), strict=False)

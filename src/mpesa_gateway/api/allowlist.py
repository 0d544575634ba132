"""Where a request really comes from, and whether that address may call back.

Falcon's `access_route` believes a client's own `Forwarded` header first, so it is not used. Here a
header counts only when a trusted proxy added it: `X-Forwarded-For` is walked from the right, over
trusted hops, to the first address that is not one. `Forwarded` and `X-Real-IP` are never read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from mpesa_gateway.domain.merchant import Address, Network

MAX_HOPS = 32
_WITH_PORT = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?\Z", re.ASCII)
NOWHERE: Address = ipaddress.IPv4Address("0.0.0.0")  # noqa: S104 - no sender has this address


def client_address(
    peer: str, forwarded_for: Iterable[str], trusted: tuple[Network, ...]
) -> Address:
    """The address to judge. `forwarded_for`: the values of all X-Forwarded-For headers, in order.

    An entry that cannot be read ends the walk at the proxy that sent it, which no list of
    Safaricom's addresses contains.
    """
    address = _parse(peer)
    if address is None:
        return NOWHERE
    hops = [hop for value in forwarded_for for hop in value.split(",")]
    for hop in reversed(hops[-MAX_HOPS:]):
        if not _contains(trusted, address):
            break
        parsed = _parse(hop)
        if parsed is None:
            break
        address = parsed
    return address


def is_forwarded(address: Address, forwarded_for: str) -> bool:
    """Whether an X-Forwarded-For header names the address."""
    return any(_parse(hop) == address for hop in forwarded_for.split(",")[-MAX_HOPS:])


# A proxy and Safaricom's own few addresses are almost all that is ever read.
@lru_cache(maxsize=1024)
def _parse(text: str) -> Address | None:
    """An address, perhaps with a port; an IPv4 address in IPv6's clothes is an IPv4 address.

    The name of a network interface (`fe80::1%eth0`) is left out: Postgres's inet has none.
    """
    text = text.strip()
    match = _WITH_PORT.match(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


def _contains(networks: tuple[Network, ...], address: Address) -> bool:
    return any(address.version == net.version and address in net for net in networks)

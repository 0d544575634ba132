"""Where a webhook may go: which URLs are acceptable, and which addresses are public.

`ipaddress.is_global` is no guard: it calls NAT64, 6to4 and IPv4-compatible spellings of 127.0.0.1
global (measured on CPython 3.11.7). The lists follow the IANA special-purpose registries.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from mpesa_gateway.domain.merchant import Address, Network
from mpesa_gateway.errors import EgressRefusedError, InvalidInputError

MAX_URL_LENGTH = 2048
DEFAULT_PORTS = {"https": 443, "http": 80}
FIRST_UNPRIVILEGED_PORT = 1024
DEVELOPMENT = "for development, MPESA_WEBHOOK_ALLOW_PRIVATE=true allows it"
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z", re.ASCII)
# RFC 3986 without brackets (those belong to an address), percent signs kept for the path.
_PRINTABLE = re.compile(r"[!-~]+\Z", re.ASCII)
# The standard library reads `[::1]shop.example` and `shop.example[::1]` as the address alone.
_BRACKETED = re.compile(r"\[[^\[\]]*\](:[0-9]*)?\Z", re.ASCII)
# Names that no public resolver answers.
LOCAL_SUFFIXES = (
    "localhost",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "home.arpa",
    "svc",
    "cluster.local",
    "arpa",
    "onion",
    "test",
    "invalid",
)

_DENIED_V4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent: a public address that is the machine itself
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_DENIED_V6 = [
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo (2001::/32) among them
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries an IPv4 address
        "2620:4f:8000::/48",
        "3fff::/20",
    )
]
# ISATAP carries an IPv4 address behind these interface identifiers (RFC 5214).
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, and stands for no other one inside it."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _DENIED_V4)
    if address.scope_id is not None or address not in _GLOBAL_UNICAST:
        return False
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return False
    return not any(address in network for network in _DENIED_V6)


# The same for a name that nobody knows and for one of an internal host: otherwise a merchant could
# find out which internal names there are.
NO_ADDRESS = "the host name has no address that a webhook may reach"


def vet_addresses(
    addresses: list[Address], *, allow_private: bool, denied: tuple[Network, ...] = ()
) -> None:
    """Refuse a name if any of its addresses is refused. Raises EgressRefusedError.

    One bad answer among good ones is what an attacker's name server gives, so it spoils all.
    """
    if not addresses:
        raise EgressRefusedError(NO_ADDRESS)
    for address in addresses:
        if any(address.version == net.version and address in net for net in denied):
            raise EgressRefusedError(NO_ADDRESS)
        if not allow_private and not is_public(address):
            raise EgressRefusedError(NO_ADDRESS)


@dataclass(frozen=True)
class Endpoint:
    """A webhook URL that was accepted. `host` is lower case, without brackets or final dot."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """What is parked when it keeps failing."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_endpoint(
    value: object, *, allow_private: bool = False, allowed_hosts: tuple[str, ...] = ()
) -> Endpoint:
    """An acceptable webhook URL. Raises InvalidInputError with what is wrong with it.

    This is the early answer to a caller; the addresses behind the name are vetted when dialled.
    """
    try:
        endpoint = _parse(value, allow_private=allow_private)
    except ValueError as error:
        raise InvalidInputError.of("webhook_url", str(error)) from error
    if allowed_hosts and endpoint.host not in allowed_hosts:
        raise InvalidInputError.of("webhook_url", "the host is not among the merchant's hosts")
    return endpoint


def _parse(value: object, *, allow_private: bool) -> Endpoint:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_URL_LENGTH:
        raise ValueError(f"must be a URL of at most {MAX_URL_LENGTH} characters")
    if not _PRINTABLE.match(value) or "\\" in value:
        raise ValueError("must be written in printable ASCII (punycode, percent-encoding)")
    parts = urlsplit(value)
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with https://; {DEVELOPMENT}")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError("must not carry a user name or password")
    if "#" in value:
        raise ValueError("must not have a fragment")
    bracketed = "[" in parts.netloc
    if bracketed and not _BRACKETED.match(parts.netloc):
        raise ValueError("the host is not a valid name")
    host = (parts.hostname or "").removesuffix(".")
    port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
    _check_host(host, bracketed=bracketed, allow_private=allow_private)
    if port not in DEFAULT_PORTS.values() and port < FIRST_UNPRIVILEGED_PORT:
        raise ValueError("the port must be 443, 80 or above 1023")
    return Endpoint(value, parts.scheme, host, port)


def _check_host(host: str, *, bracketed: bool, allow_private: bool) -> None:
    """Raises ValueError unless the host is a public name or a public address, plainly written."""
    if bracketed or _ends_in_number(host):
        _check_literal(host, bracketed=bracketed, allow_private=allow_private)
        return
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.match(label) for label in labels):
        raise ValueError("the host is not a valid name")
    if allow_private:
        return
    local = any(host == suffix or host.endswith("." + suffix) for suffix in LOCAL_SUFFIXES)
    if local or len(labels) < 2 or "svc" in labels:
        raise ValueError(f"the host is a local name, not a public one; {DEVELOPMENT}")


def _ends_in_number(host: str) -> bool:
    """Whether a resolver may read the host as an address (`2130706433`, `0x7f.1`, `127.1`)."""
    last = host.rsplit(".", 1)[-1]
    return last.isdigit() or bool(re.fullmatch(r"0x[0-9a-f]*", last))


def _check_literal(host: str, *, bracketed: bool, allow_private: bool) -> None:
    try:
        address: Address = ipaddress.IPv6Address(host) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        raise ValueError("the host is an oddly written address") from None
    if "%" in host:
        raise ValueError("the host must not name a network interface")
    if not allow_private and not is_public(address):
        raise ValueError(f"the host is not a public address; {DEVELOPMENT}")

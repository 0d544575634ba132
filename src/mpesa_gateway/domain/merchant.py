"""A merchant: its Daraja account, what may call back, where its webhooks go, its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Literal

from mpesa_gateway.domain.amount import MAX_AMOUNT

DEFAULT_MERCHANT = "default"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
TransactionType = Literal["CustomerPayBillOnline", "CustomerBuyGoodsOnline"]

DEFAULT_RETRY_SCHEDULE = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
)


@dataclass(frozen=True)
class Credentials:
    """One Daraja app and the passkey of one short code. Never shown."""

    consumer_key: str = field(repr=False)
    consumer_secret: str = field(repr=False)
    passkey: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Merchant:
    """One merchant as published. `name` is `default` or `namespace/name`.

    `uid` is the MerchantConfig's: a later one of the same name has another, and its `name` then
    ends in it (domain/ownership.py), because a history belongs to the object.
    `short_code` is the paybill, or for a till the store or head-office number; `till_number` is
    PartyB of a till. Empty `allowed_networks` and `allowed_hosts` do not narrow anything.
    """

    name: str
    base_url: str
    short_code: str
    transaction_type: TransactionType
    till_number: str | None
    credentials: Credentials = field(repr=False)
    api_key_sha256: tuple[bytes, ...] = field(repr=False)
    allowed_networks: tuple[Network, ...] = ()
    webhook_url: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    webhook_secrets: tuple[str, ...] = field(repr=False)
    retry_schedule: tuple[timedelta, ...] = DEFAULT_RETRY_SCHEDULE
    min_amount: Decimal = Decimal(1)
    max_amount: Decimal = MAX_AMOUNT
    initiate_per_minute: int = 0
    suspended: bool = False
    draining: bool = False
    uid: str | None = None

    @property
    def party_b(self) -> str:
        """Who is paid: the paybill itself, or the till."""
        return self.till_number or self.short_code


@dataclass(frozen=True)
class Ceilings:
    """What the platform allows at most; a merchant's own limits may only lower it.

    `initiate_per_minute` is 0 for no limit, as in a merchant's own limits.
    """

    max_amount: Decimal = MAX_AMOUNT
    initiate_per_minute: int = 0

    def lower_amount(self, own: Decimal | None) -> Decimal:
        """Return the greatest amount of one payment; `own` is None where a merchant sets none."""
        return self.max_amount if own is None else min(own, self.max_amount)

    def lower_rate(self, own: int | None) -> int:
        """Return how many payments a minute may start, 0 for no limit."""
        limits = [it for it in (own, self.initiate_per_minute) if it]
        return min(limits, default=0)


def is_allowed(address: Address, *lists: tuple[Network, ...]) -> bool:
    """Whether the address is inside every list that is not empty."""
    return all(not networks or _contains(networks, address) for networks in lists)


def _contains(networks: tuple[Network, ...], address: Address) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def parse_networks(texts: list[str]) -> tuple[Network, ...]:
    """Addresses and CIDRs. Raises ValueError naming the first that is neither."""
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(_unmapped(ipaddress.ip_network(text.strip(), strict=False)))
        except ValueError as error:
            raise ValueError(f"{text.strip()!r} is no IP address or CIDR") from error
    return tuple(networks)


def _unmapped(network: Network) -> Network:
    """IPv4 for what is IPv4 inside IPv6, as callers' addresses are read."""
    first = network.network_address
    if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped and network.prefixlen >= 96:
        return ipaddress.IPv4Network((int(first.ipv4_mapped), network.prefixlen - 96))
    return network

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

    @property
    def party_b(self) -> str:
        """Who is paid: the paybill itself, or the till."""
        return self.till_number or self.short_code


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
            networks.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError as error:
            raise ValueError(f"{text.strip()!r} is no IP address or CIDR") from error
    return tuple(networks)

"""Callback allowlists: a merchant may narrow the platform's list, never widen it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from mpesa_gateway.domain.merchant import Network, parse_networks


def intersect(wanted: Iterable[Network], platform: Iterable[Network]) -> tuple[Network, ...]:
    """What is inside both lists, sorted, without repeats. An empty platform list allows all."""
    wanted, platform = tuple(wanted), tuple(platform)
    if not platform:
        return ordered(wanted)
    return ordered(
        narrower
        for one in wanted
        for other in platform
        if (narrower := _overlap(one, other)) is not None
    )


def _overlap(one: Network, other: Network) -> Network | None:
    """Networks are nested or apart, so what they share is the narrower one."""
    if one.version != other.version or not one.overlaps(other):
        return None
    return one if one.prefixlen >= other.prefixlen else other


def ordered(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Sorted, IPv4 first, each once."""
    return tuple(
        sorted(set(networks), key=lambda it: (it.version, int(it.network_address), it.prefixlen))
    )


def list_hash(networks: Iterable[Network]) -> str:
    """Tells two lists apart."""
    text = "\n".join(str(network) for network in ordered(networks))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def readable_copy(
    platform: tuple[Network, ...], merchants: Mapping[str, tuple[Network, ...]]
) -> dict[str, str]:
    """The ConfigMap's data: every network that may call back, for devices at the edge.

    A merchant without networks of its own has the platform's. Where that is empty too, everyone
    may call back, and `unrestricted` says so.
    """
    union = ordered([*platform, *(net for nets in merchants.values() for net in nets)])
    open_to_all = not platform and (not merchants or not all(merchants.values()))
    counts = {key: len(nets or platform) for key, nets in sorted(merchants.items())}
    return {
        "cidrs": "".join(f"{network}\n" for network in union),
        "hash": list_hash(union),
        "merchants.json": json.dumps(counts, indent=2) + "\n",
        "unrestricted": "true" if open_to_all else "false",
    }


def parse_cidrs(texts: list[str]) -> tuple[Network, ...]:
    """Networks of a merchant file or spec. Raises ValueError."""
    return parse_networks(texts)

"""Where a callback comes from: what a forger may write, and what is believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.collecting import every_case
from harness.gateway import Gateway, Gateways
from harness.wire import exchange, request_bytes
from mpesa_gateway.api.allowlist import MAX_HOPS, NOWHERE, client_address
from mpesa_gateway.domain.merchant import parse_networks

SAFARICOM = "196.201.214.200"
FORGER = "203.0.113.66"
# The load balancer, the ingress, and an IPv6 proxy.
PROXY, INGRESS, PROXY6 = "10.0.0.1", "10.0.0.2", "2001:db8::1"
TRUSTED = parse_networks(["10.0.0.0/24", "2001:db8::/64"])


def judged(peer: str, *forwarded_for: str, trusted: Any = TRUSTED) -> str:
    return str(client_address(peer, forwarded_for, trusted))


@every_case(
    ("peer", "forwarded_for", "expected"),
    [
        # Without a trusted peer, headers are only words.
        (FORGER, [], FORGER),
        (FORGER, [SAFARICOM], FORGER),
        (FORGER, [f"{SAFARICOM}, {PROXY}"], FORGER),
        (FORGER, [SAFARICOM, PROXY, INGRESS], FORGER),
        ("10.0.1.1", [SAFARICOM], "10.0.1.1"),
        ("127.0.0.1", [SAFARICOM], "127.0.0.1"),
        # What the trusted proxy added is believed.
        (PROXY, [SAFARICOM], SAFARICOM),
        (PROXY, [f"{SAFARICOM}, {INGRESS}"], SAFARICOM),
        (PROXY, [SAFARICOM, INGRESS], SAFARICOM),
        (PROXY6, [SAFARICOM], SAFARICOM),
        # The forger wrote the left-most one, the proxy added where it came from.
        (PROXY, [f"{SAFARICOM}, {FORGER}"], FORGER),
        (PROXY, [f"{SAFARICOM},{FORGER}"], FORGER),
        (PROXY, [SAFARICOM, FORGER], FORGER),
        (PROXY, [f"{SAFARICOM}, {SAFARICOM}, {FORGER}, {INGRESS}"], FORGER),
        (PROXY, [f"{SAFARICOM}, {FORGER}", INGRESS], FORGER),
        # The forger pretends to be a trusted hop: the walk ends at its own address.
        (PROXY, [f"{SAFARICOM}, {INGRESS}, {FORGER}"], FORGER),
        (PROXY, [f"{SAFARICOM}, {PROXY}, {PROXY}, {FORGER}, {INGRESS}"], FORGER),
        # Nobody in front: the proxy itself called.
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["   "], PROXY),
        (PROXY, [","], PROXY),
        (PROXY, [INGRESS], INGRESS),
        # What cannot be read ends the walk at whoever sent it.
        (PROXY, ["unknown"], PROXY),
        (PROXY, [f"{SAFARICOM}, unknown"], PROXY),
        (PROXY, [f"{SAFARICOM}, _hidden"], PROXY),
        (PROXY, [f"{SAFARICOM}, unknown, {INGRESS}"], INGRESS),
        (PROXY, [f"{SAFARICOM},"], PROXY),
        (PROXY, [f"{SAFARICOM}, , {INGRESS}"], INGRESS),
        (PROXY, [f"for={SAFARICOM}"], PROXY),
        (PROXY, [f'"{SAFARICOM}"'], PROXY),
        (PROXY, [f"{SAFARICOM} {FORGER}"], PROXY),
        (PROXY, [f"{SAFARICOM};{FORGER}"], PROXY),
        (PROXY, [f"{SAFARICOM}\t"], SAFARICOM),
        (PROXY, [f"  {SAFARICOM}  "], SAFARICOM),
        (PROXY, [f"{SAFARICOM}\x00"], PROXY),
        (PROXY, [f"{SAFARICOM}/32"], PROXY),
        (PROXY, ["safaricom.co.ke"], PROXY),
        # Ports.
        (PROXY, [f"{SAFARICOM}:443"], SAFARICOM),
        (PROXY, [f"{SAFARICOM}:"], PROXY),
        (PROXY, [f"{SAFARICOM}:x"], PROXY),
        (PROXY, [f"{SAFARICOM}:443:443"], PROXY),
        (PROXY, ["[2001:db8:9::1]:443"], "2001:db8:9::1"),
        (PROXY, ["[2001:db8:9::1]"], "2001:db8:9::1"),
        (PROXY, ["[2001:db8:9::1"], PROXY),
        (PROXY, [f"[{SAFARICOM}]:443"], SAFARICOM),
        # IPv6, and IPv4 in its clothes.
        (PROXY, ["2001:db8:9::1"], "2001:db8:9::1"),
        (PROXY, ["2001:DB8:9:0:0:0:0:1"], "2001:db8:9::1"),
        (PROXY, [f"::ffff:{SAFARICOM}"], SAFARICOM),
        (PROXY, ["::ffff:c4c9:d6c8"], SAFARICOM),
        (PROXY, [f"[::ffff:{SAFARICOM}]:443"], SAFARICOM),
        (f"::ffff:{PROXY}", [SAFARICOM], SAFARICOM),
        (f"::ffff:{FORGER}", [SAFARICOM], FORGER),
        # Only the mapped form is the same address: the others route elsewhere.
        (PROXY, [f"::{SAFARICOM}"], "::c4c9:d6c8"),
        (PROXY, ["64:ff9b::c4c9:d6c8"], "64:ff9b::c4c9:d6c8"),
        (f"::{PROXY}", [SAFARICOM], "::a00:1"),
        # A network interface is of no use to anybody else, and no inet.
        (PROXY, ["fe80::1%eth0"], "fe80::1"),
        ("fe80::1%eth0", [SAFARICOM], "fe80::1"),
        (PROXY, [f"::ffff:{SAFARICOM}%eth0"], SAFARICOM),
        # Odd spellings are not addresses.
        (PROXY, ["3301561032"], PROXY),
        (PROXY, ["0xc4c9d6c8"], PROXY),
        (PROXY, ["0304.0311.0326.0310"], PROXY),
        (PROXY, ["196.201.54984"], PROXY),
        (PROXY, ["196.201.214.0200"], PROXY),
        (PROXY, ["\u0661\u0669\u0666.201.214.200"], PROXY),
        (PROXY, ["\uff11\uff19\uff16.201.214.200"], PROXY),
        (PROXY, ["-1"], PROXY),
        (PROXY, ["1" * 10_000], PROXY),
        (PROXY, [":" * 10_000], PROXY),
        (PROXY, ["[" * 10_000], PROXY),
        # A peer that is none.
        ("", [SAFARICOM], str(NOWHERE)),
        ("unix", [SAFARICOM], str(NOWHERE)),
        ("/run/api.sock", [SAFARICOM], str(NOWHERE)),
    ],
    ids=lambda it: repr(it)[:48],
)
def test_only_what_a_trusted_hop_added_is_believed(
    peer: str, forwarded_for: list[str], expected: str
) -> None:
    assert judged(peer, *forwarded_for) == expected


@pytest.mark.parametrize("peer", [PROXY, SAFARICOM, "::1", FORGER])
def test_without_trusted_proxies_the_peer_is_all_there_is(peer: str) -> None:
    assert judged(peer, SAFARICOM, trusted=()) == peer


def test_a_thousand_hops_are_walked_no_further_than_the_limit() -> None:
    hops = ", ".join([SAFARICOM] + [PROXY] * 1000)

    assert judged(PROXY, hops) == PROXY
    assert judged(PROXY, ", ".join([SAFARICOM] + [PROXY] * (MAX_HOPS - 1))) == SAFARICOM
    assert judged(PROXY, ", ".join([SAFARICOM] + [PROXY] * MAX_HOPS)) == PROXY
    assert judged(PROXY, *([SAFARICOM] * 1000), FORGER) == FORGER


@given(st.lists(st.text(max_size=60), max_size=6))
def test_whatever_a_forger_writes_its_own_address_is_judged(words: list[str]) -> None:
    assert judged(FORGER, *words) == FORGER
    # As a proxy passes it on: in the same header, or in one of its own.
    assert judged(PROXY, ", ".join([*words, FORGER])) == FORGER
    assert judged(PROXY, *words, FORGER) == FORGER


@given(st.ip_addresses())
def test_an_address_of_the_proxys_client_is_read_as_it_is(address: Any) -> None:
    mapped = getattr(address, "ipv4_mapped", None) or address
    if any(mapped.version == net.version and mapped in net for net in TRUSTED):
        return
    assert ipaddress.ip_address(judged(PROXY, str(address))) == mapped


@pytest.fixture(scope="module")
def walled(gateways: Gateways) -> Iterator[Gateway]:
    """A gateway whose only trusted proxy is 127.0.0.1, for callbacks from one address."""
    with gateways.start(
        safaricom_ips=f"{SAFARICOM}, fe80::/10", trusted_proxies="127.0.0.1, 10.0.0.0/24"
    ) as gateway:
        yield gateway


@every_case(
    ("headers", "status"),
    [
        ([f"X-Forwarded-For: {SAFARICOM}"], 200),
        ([f"x-forwarded-for:{SAFARICOM}:9999"], 200),
        ([f"X-Forwarded-For: {FORGER}", f"X-Forwarded-For: {SAFARICOM}"], 200),
        ([f"X-Forwarded-For: {SAFARICOM}, {INGRESS}"], 200),
        (["X-Forwarded-For: fe80::1%eth0"], 200),
        ([], 403),
        ([f"X-Forwarded-For: {FORGER}"], 403),
        ([f"X-Forwarded-For: {SAFARICOM}, {FORGER}"], 403),
        ([f"X-Forwarded-For: {SAFARICOM}", f"X-Forwarded-For: {FORGER}"], 403),
        ([f"X-Forwarded-For: {SAFARICOM}, unknown"], 403),
        ([f"X_Forwarded_For: {SAFARICOM}"], 403),
        ([f"X-Forwarded-For : {SAFARICOM}"], 400),
        ([f"Forwarded: for={SAFARICOM}"], 403),
        ([f"Forwarded: for={SAFARICOM}", f"X-Forwarded-For: {FORGER}"], 403),
        ([f"X-Real-IP: {SAFARICOM}"], 403),
        ([f"X-Client-IP: {SAFARICOM}", f"CF-Connecting-IP: {SAFARICOM}"], 403),
        ([f"True-Client-IP: {SAFARICOM}", f"X-Original-Forwarded-For: {SAFARICOM}"], 403),
        ([f"X-Forwarded-For: \xa0{SAFARICOM}\xe9"], 403),
        ([f"X-Forwarded-Host: {SAFARICOM}"], 403),
        ([f"Host: {SAFARICOM}"], 400),
        ([f"X-Forwarded-For: {', '.join([SAFARICOM] * 1000)}, {FORGER}"], 403),
    ],
    ids=lambda it: str(it)[:60],
)
def test_the_api_judges_the_same_address(walled: Gateway, headers: list[str], status: int) -> None:
    reply = exchange(walled.url, request_bytes("POST", "/callback", *headers, body=b"{}"))

    assert reply.status == status, reply.body


def test_the_source_is_kept_with_the_callback(walled: Gateway) -> None:
    head = f"X-Forwarded-For: {FORGER}, {SAFARICOM}, {INGRESS}"
    exchange(walled.url, request_bytes("POST", "/callback", head, body=b"where from"))

    (row,) = walled.rows("SELECT source, headers FROM callbacks WHERE body = %s", b"where from")

    assert str(row["source"]) == SAFARICOM
    # As evidence, with what the sender claimed.
    assert row["headers"]["x-forwarded-for"] == f"{FORGER}, {SAFARICOM}, {INGRESS}"

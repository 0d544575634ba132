"""Which addresses the egress guard lets a webhook dial."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.addresses import DENIED_V4, DENIED_V6, inner_v4, inner_v6, v4, v6
from harness.collecting import every_case
from harness.properties import repeatable
from mpesa_gateway.domain.endpoint import (
    is_public,
    vet_addresses,
)
from mpesa_gateway.domain.merchant import Address, parse_networks
from mpesa_gateway.errors import EgressRefusedError

PUBLIC_V4 = [
    IPv4Address(text)
    for text in (
        "1.0.0.0",
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.31.195.255",
        "192.31.197.0",
        "192.52.192.255",
        "192.52.194.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "192.175.47.255",
        "192.175.49.0",
        "196.201.214.200",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
    )
]
PUBLIC_V6 = [
    IPv6Address(text)
    for text in (
        "2000::",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db9::",
        "2003::1",
        "2400:cb00:2048:1::6814:155",
        "2606:4700:4700::1111",
        "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff",
        "2620:4f:8001::",
        "2a00:1450:4001:81b::200e",
        "2c0f:fe38::1",
        "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "3fff:1000::",
        # An interface identifier that looks like ISATAP's, but is not.
        "2606:4700::5eff:a00:1",
        "2606:4700::5efd:a00:1",
        "2606:4700::100:5efe:a00:1",
    )
]
# Every one of them leads somewhere inside, or nowhere, or to a cloud's keys.
DENIED_ADDRESSES = [
    "0.0.0.0",  # noqa: S104 - refused, not bound
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.0",
    "10.0.0.1",
    "10.96.0.1",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.0.1.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.255.255",
    "172.16.0.0",
    "172.17.0.1",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.10",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::127.0.0.1",
    "::10.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8",
    "64:ff9b::",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::808:808",
    "64:ff9b:1::",
    "64:ff9b:1::a00:1",
    "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
    "100::",
    "100::1",
    "100:0:0:1::1",
    "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001::",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:1::1",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db8::",
    "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
    "2002::",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2620:4f:8000::1",
    "2606:4700::5efe:127.0.0.1",
    "2606:4700::200:5efe:10.0.0.1",
    "2606:4700::5efe:8.8.8.8",
    "3fff::",
    "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
    "4000::",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::a9fe:a9fe",
    "fec0::1",
    "febf::1",
    "ff02::1",
    "ff0e::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    # A name for an interface never belongs to a public address.
    "2606:4700:4700::1111%eth0",
    "2606:4700:4700::1111%0",
]


@every_case("address", [*PUBLIC_V4, *PUBLIC_V6], ids=str)
def test_the_internet_is_public_up_to_the_edges_of_what_is_not(address):
    assert is_public(address)


@every_case("text", DENIED_ADDRESSES)
def test_an_address_inside_is_not_public(text):
    assert not is_public(ipaddress.ip_address(text))


def test_the_table_of_addresses_is_long_and_says_nothing_twice():
    assert len(DENIED_ADDRESSES) > 80
    assert len(set(DENIED_ADDRESSES)) == len(DENIED_ADDRESSES)


@every_case("network", [*DENIED_V4, *DENIED_V6], ids=str)
def test_first_middle_and_last_address_of_every_special_network_are_refused(network):
    count = network.num_addresses
    for offset in dict.fromkeys([0, count // 3, count // 2, count - 1]):
        assert not is_public(network[offset])


# Each writes an IPv4 address inside an IPv6 one, as some standard does.
SPELLINGS = [
    ("mapped", "::ffff:0:0", 0),
    ("compatible", "::", 0),
    ("translated", "::ffff:0:0:0", 0),
    ("NAT64", "64:ff9b::", 0),
    ("local NAT64", "64:ff9b:1::", 0),
    ("local NAT64 /48", "64:ff9b:1::", 40),
    ("6to4", "2002::", 80),
    ("6to4 with a host", "2002::1", 80),
    ("Teredo server", "2001::", 64),
    ("ISATAP", "2606:4700::5efe:0:0", 0),
    ("ISATAP, global", "2606:4700::200:5efe:0:0", 0),
    ("ISATAP, link-local", "fe80::5efe:0:0", 0),
]
INSIDE_V4 = [address for net in DENIED_V4 for address in (net[0], net[-1])]


@every_case(("name", "prefix", "shift"), SPELLINGS, ids=[it[0] for it in SPELLINGS])
def test_no_ipv6_spelling_of_an_inner_ipv4_address_is_public(name, prefix, shift):
    for address in INSIDE_V4:
        spelled = IPv6Address(int(IPv6Address(prefix)) | int(address) << shift)
        assert not is_public(spelled), f"{name} {spelled}"


def test_a_teredo_clients_address_is_written_upside_down_and_refused_too():
    for address in INSIDE_V4:
        teredo = IPv6Address(int(IPv6Address("2001::")) | (int(address) ^ 0xFFFFFFFF))
        assert teredo.teredo is not None
        assert teredo.teredo[1] == address
        assert not is_public(teredo), teredo


@repeatable
@given(inner_v4, st.sampled_from(SPELLINGS))
def test_any_address_of_a_denied_network_is_refused_in_every_spelling(address, spelling):
    assert not is_public(address)
    _, prefix, shift = spelling
    assert not is_public(IPv6Address(int(IPv6Address(prefix)) | int(address) << shift))


@repeatable
@given(inner_v6)
def test_any_address_of_a_denied_ipv6_network_is_refused(address):
    assert not is_public(address)


@repeatable
@given(v4 | v6)
def test_what_is_public_is_global_to_the_standard_library_too(address):
    """An outside witness. The reverse does not hold, which is why there is a guard."""
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
        assert getattr(address, "ipv4_mapped", None) is None
        assert getattr(address, "sixtofour", None) is None
        assert getattr(address, "teredo", None) is None


@repeatable
@given(v4)
def test_an_ipv4_address_is_public_unless_it_is_in_a_denied_network(address):
    assert is_public(address) == (not any(address in network for network in DENIED_V4))


GOOD: list[Address] = [IPv4Address("1.1.1.1"), IPv6Address("2606:4700:4700::1111")]
BAD: list[Address] = [
    IPv4Address("10.0.0.1"),
    IPv6Address("::ffff:10.0.0.1"),
    IPv6Address("fd00::1"),
]
CLUSTER = parse_networks(["203.0.112.0/24", "2a00:1450::/32"])


def test_a_name_with_public_addresses_only_is_accepted():
    vet_addresses(GOOD, allow_private=False)
    vet_addresses(GOOD[:1], allow_private=False, denied=CLUSTER)


def test_a_name_without_an_address_is_refused():
    for allow_private in (False, True):
        with pytest.raises(EgressRefusedError, match="no address"):
            vet_addresses([], allow_private=allow_private)


@every_case("bad", BAD, ids=str)
@every_case("place", [0, 1, 2])
def test_one_bad_address_among_good_ones_spoils_all(bad, place):
    answer = [*GOOD[:place], bad, *GOOD[place:]]
    with pytest.raises(EgressRefusedError, match="no address that a webhook may reach") as refused:
        vet_addresses(answer, allow_private=False)
    assert str(bad) not in str(refused.value)


def test_private_addresses_are_accepted_where_that_is_allowed():
    vet_addresses([*GOOD, *BAD], allow_private=True)


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("text", ["203.0.112.7", "2a00:1450::7"])
def test_a_network_of_our_own_is_refused_even_where_private_ones_are_allowed(text, allow_private):
    address = ipaddress.ip_address(text)
    vet_addresses([address], allow_private=allow_private)
    with pytest.raises(EgressRefusedError, match="no address that a webhook may reach") as refused:
        vet_addresses([*GOOD, address], allow_private=allow_private, denied=CLUSTER)
    assert text not in str(refused.value)

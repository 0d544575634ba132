import ipaddress
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st

from harness.properties import json_values, repeatable
from mpesa_gateway.domain.endpoint import (
    Endpoint,
    is_public,
    parse_endpoint,
    vet_addresses,
)
from mpesa_gateway.domain.merchant import Address, parse_networks
from mpesa_gateway.errors import EgressRefusedError, InvalidInputError

# Written out here once more, after the IANA special-purpose registries, so that a line that is lost
# in the code is missed.
DENIED_V4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
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
DENIED_V6 = [
    IPv6Network(text)
    for text in (
        "::/3",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        "4000::/2",
        "5f00::/16",
        "8000::/1",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
]
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


@pytest.mark.parametrize("address", [*PUBLIC_V4, *PUBLIC_V6], ids=str)
def test_the_internet_is_public_up_to_the_edges_of_what_is_not(address):
    assert is_public(address)


@pytest.mark.parametrize("text", DENIED_ADDRESSES)
def test_an_address_inside_is_not_public(text):
    assert not is_public(ipaddress.ip_address(text))


def test_the_table_of_addresses_is_long_and_says_nothing_twice():
    assert len(DENIED_ADDRESSES) > 80
    assert len(set(DENIED_ADDRESSES)) == len(DENIED_ADDRESSES)


@pytest.mark.parametrize("network", [*DENIED_V4, *DENIED_V6], ids=str)
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


@pytest.mark.parametrize(("name", "prefix", "shift"), SPELLINGS, ids=[it[0] for it in SPELLINGS])
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


inner_v4 = st.sampled_from(DENIED_V4).flatmap(lambda it: st.ip_addresses(network=it))
inner_v6 = st.sampled_from(DENIED_V6).flatmap(lambda it: st.ip_addresses(network=it))
v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6) | st.ip_addresses(network="2000::/3")


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


# --------------------------------------------------------------------------- the answer of a name

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


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_address_among_good_ones_spoils_all(bad, place):
    answer = [*GOOD[:place], bad, *GOOD[place:]]
    with pytest.raises(EgressRefusedError, match="not public") as refused:
        vet_addresses(answer, allow_private=False)
    assert str(bad) not in str(refused.value)


def test_private_addresses_are_accepted_where_that_is_allowed():
    vet_addresses([*GOOD, *BAD], allow_private=True)


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("text", ["203.0.112.7", "2a00:1450::7"])
def test_a_network_of_our_own_is_refused_even_where_private_ones_are_allowed(text, allow_private):
    address = ipaddress.ip_address(text)
    vet_addresses([address], allow_private=allow_private)
    with pytest.raises(EgressRefusedError, match="not allowed") as refused:
        vet_addresses([*GOOD, address], allow_private=allow_private, denied=CLUSTER)
    assert text not in str(refused.value)


# ------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "host", "port", "origin"),
    [
        ("https://shop.example.com", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com/", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com./a", "shop.example.com", 443, "https://shop.example.com:443"),
        ("HTTPS://Shop.EXAMPLE.com/A", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com:443/a", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com:/a", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com:80/a", "shop.example.com", 80, "https://shop.example.com:80"),
        (
            "https://shop.example.com:1024",
            "shop.example.com",
            1024,
            "https://shop.example.com:1024",
        ),
        (
            "https://shop.example.com:65535",
            "shop.example.com",
            65535,
            "https://shop.example.com:65535",
        ),
        ("https://a.b?x=1@2", "a.b", 443, "https://a.b:443"),
        ("https://a.b/p;q?x=%0a&y=[1]", "a.b", 443, "https://a.b:443"),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example", 443, None),
        ("https://under_score.example", "under_score.example", 443, None),
        ("https://1.1.1.1/a", "1.1.1.1", 443, "https://1.1.1.1:443"),
        ("https://1.1.1.1./a", "1.1.1.1", 443, "https://1.1.1.1:443"),
        (
            "https://[2606:4700:4700::1111]:8443/a",
            "2606:4700:4700::1111",
            8443,
            "https://[2606:4700:4700::1111]:8443",
        ),
        ("https://4chan.example", "4chan.example", 443, None),
        ("https://1.2.3.4.example", "1.2.3.4.example", 443, None),
        ("https://local.example", "local.example", 443, None),
        ("https://localhost.example", "localhost.example", 443, None),
        ("https://internal.example", "internal.example", 443, None),
        ("https://notlocal", None, None, None),
        ("https://mysvc.example", "mysvc.example", 443, None),
        ("https://0x7f.example", "0x7f.example", 443, None),
        ("https://" + "a" * 63 + ".example", "a" * 63 + ".example", 443, None),
    ],
)
def test_a_public_https_url_is_accepted(url, host, port, origin):
    if host is None:
        with pytest.raises(InvalidInputError):
            parse_endpoint(url)
        return
    endpoint = parse_endpoint(url)
    assert endpoint == Endpoint(url, "https", host, port)
    assert endpoint.origin == (origin or f"https://{host}:{port}")


LONG = "https://a.example/"
REFUSED_URLS = [
    # Nothing that is a URL.
    "",
    " ",
    "shop.example",
    "//shop.example",
    "https:",
    "https:/shop.example",
    "https:///shop.example",
    "https:shop.example",
    "https://",
    "https://?a",
    "https://:443",
    "https://.",
    "https://..",
    LONG + "a" * (2049 - len(LONG)),
    # Another scheme.
    "http://shop.example",
    "HTTP://shop.example",
    "ftp://shop.example",
    "file:///etc/passwd",
    "gopher://shop.example",
    "javascript:alert(1)",
    "httpss://shop.example",
    # A user, or what looks like one.
    "https://user@shop.example",
    "https://user:password@shop.example",
    "https://@shop.example",
    "https://:@shop.example",
    "https://shop.example@127.0.0.1",
    "https://127.0.0.1@shop.example",
    "https://shop.example:443@127.0.0.1/",
    "https://shop.example%40127.0.0.1",
    # A fragment, empty ones too.
    "https://shop.example/#",
    "https://shop.example#a",
    "https://shop.example/a#@127.0.0.1",
    # What parsers disagree about.
    "https:\\\\shop.example",
    "https://shop.example\\@127.0.0.1",
    "https://shop.example\\.127.0.0.1",
    "https://shop.example/\\a",
    "https://shop.example\t",
    "https://shop\t.example",
    "https://shop.example/\ta",
    "https://shop.example\n",
    "https://shop.example/\r\nHost: localhost",
    " https://shop.example",
    "https://shop.example ",
    "https://shop .example",
    "https://shop.example/a b",
    "https://shop.example/\x00",
    "https://shop.example/\x7f",
    "https://[2606:4700::1111]shop.example",
    "https://shop.example[2606:4700::1111]",
    "https://x[2606:4700::1111]:443",
    "https://[2606:4700::1111]]",
    "https://[2606:4700::1111]x:443",
    "https://[[2606:4700::1111]]",
    "https://[2606:4700::1111",
    "https://2606:4700::1111]",
    "https://[]",
    "https://[shop.example]",
    "https://[1.1.1.1]",
    "https://[v1.a]",
    "https://2606:4700::1111",
    # Letters of other scripts, some of which become dots and digits.
    "https://sh\u00f6p.example",
    "https://shop\u3002example",
    "https://shop.example/\u00e9",
    "https://\uff11\uff12\uff17.0.0.1",
    "https://\u2460\u2461\u2466.0.0.1",
    "https://127\u30020\u30020\u30021",
    "https://\u0661\u0662\u0667.\u0660.\u0660.\u0661",
    "https://loc\u00adalhost",
    "https://shop.example:\u0664\u0664\u0663",
    # Ports.
    "https://shop.example:0",
    "https://shop.example:1",
    "https://shop.example:22",
    "https://shop.example:25",
    "https://shop.example:79",
    "https://shop.example:81",
    "https://shop.example:442",
    "https://shop.example:1023",
    "https://shop.example:65536",
    "https://shop.example:99999999999999999999",
    "https://shop.example:-443",
    "https://shop.example:+443",
    "https://shop.example:443a",
    "https://shop.example:4_43",
    "https://shop.example:0x1bb",
    "https://shop.example:443:443",
    # Names that are not names.
    "https://-shop.example",
    "https://shop-.example",
    "https://shop..example",
    "https://.shop.example",
    "https://shop.example..",
    "https://sh*p.example",
    "https://*.example",
    "https://shop,example",
    "https://shop;x.example",
    "https://shop%2eexample",
    "https://shop%00.example",
    "https://$(id).example",
    "https://" + "a" * 64 + ".example",
    "https://" + "a." * 127 + "example",
    # Names of this machine, this cluster, this network.
    "https://localhost",
    "https://LOCALHOST",
    "https://localhost.",
    "https://a.localhost",
    "https://shop",
    "https://shop.",
    "https://kubernetes",
    "https://printer.local",
    "https://PRINTER.LOCAL.",
    "https://metadata.google.internal",
    "https://api.internal",
    "https://wiki.intranet",
    "https://router.lan",
    "https://router.home",
    "https://mail.corp",
    "https://db.private",
    "https://nas.home.arpa",
    "https://1.0.0.127.in-addr.arpa",
    "https://hidden.onion",
    "https://shop.test",
    "https://shop.invalid",
    "https://postgres.default.svc",
    "https://postgres.default.svc.cluster.local",
    "https://postgres.default.svc.cluster.local.",
    "https://POSTGRES.default.SVC.cluster.LOCAL",
    "https://postgres.default.svc.my-cluster.example",
    "https://default.cluster.local",
    # Addresses inside, plainly written.
    "https://127.0.0.1",
    "https://127.0.0.1.",
    "https://10.96.0.1:8443/a",
    "https://169.254.169.254/latest/meta-data/",
    "https://0.0.0.0",
    "https://[::1]",
    "https://[::]",
    "https://[::ffff:7f00:1]",
    "https://[::FFFF:127.0.0.1]",
    "https://[::127.0.0.1]",
    "https://[64:ff9b::7f00:1]",
    "https://[2002:7f00:1::]",
    "https://[fd00:ec2::254]",
    "https://[fe80::1]",
    "https://[fe80::1%25eth0]",
    "https://[fe80::1%eth0]",
    "https://[2606:4700:4700::1111%25eth0]",
    # Addresses in odd clothes, public ones too.
    "https://0x7f.1",
    "https://0X7F.0.0.1",
    "https://0x7f000001",
    "https://2130706433",
    "https://0177.0.0.1",
    "https://017700000001",
    "https://127.1",
    "https://127.0.1",
    "https://127.0.0.0x1",
    "https://127.0.0.01",
    "https://127.000.000.001",
    "https://127.0.0.1.1",
    "https://0",
    "https://0x",
    "https://1.0x",
    "https://256.256.256.256",
    "https://1.1.1.256",
    "https://1.1.1",
    "https://16843009",
    "https://shop.example.1",
    "https://shop.0x1",
    "https://4294967296",
]


@pytest.mark.parametrize("url", REFUSED_URLS, ids=lambda url: ascii(url)[:60])
def test_anything_else_is_refused_and_the_field_is_named(url):
    with pytest.raises(InvalidInputError) as refused:
        parse_endpoint(url)
    assert [problem.field for problem in refused.value.problems] == ["webhook_url"]


@pytest.mark.parametrize("value", [None, 5, True, [], {}, b"https://shop.example"], ids=repr)
def test_what_is_no_text_is_refused(value):
    with pytest.raises(InvalidInputError, match="must be a URL"):
        parse_endpoint(value)


def test_a_url_has_2048_characters_at_most():
    longest = LONG + "a" * (2048 - len(LONG))
    assert parse_endpoint(longest).url == longest


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("http://localhost", "http", "localhost", 80),
        ("http://127.0.0.1:9999/hook", "http", "127.0.0.1", 9999),
        ("https://[::1]:8443", "https", "::1", 8443),
        ("http://shop", "http", "shop", 80),
        (
            "http://shop.default.svc.cluster.local/hook",
            "http",
            "shop.default.svc.cluster.local",
            80,
        ),
        ("https://10.0.0.1", "https", "10.0.0.1", 443),
    ],
)
def test_for_development_plain_http_and_inner_hosts_are_accepted(url, scheme, host, port):
    with pytest.raises(InvalidInputError):
        parse_endpoint(url)
    assert parse_endpoint(url, allow_private=True) == Endpoint(url, scheme, host, port)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://localhost",
        "http://user@localhost",
        "http://localhost/#a",
        "http://localhost:22",
        "http://localhost\\a",
        "http://[fe80::1%25eth0]",
        "http://[::1]x",
        "http://0x7f.1",
        "http://2130706433",
        "http://127.1",
        "http://0177.0.0.1",
        "http://under score",
        "http://-a",
        "http://",
    ],
)
def test_for_development_a_url_must_still_be_plainly_written(url):
    with pytest.raises(InvalidInputError):
        parse_endpoint(url, allow_private=True)


def test_a_merchant_may_narrow_its_endpoints_to_some_hosts():
    hosts = ("shop.example.com", "2606:4700:4700::1111")
    for url in ("https://shop.example.com/a", "https://SHOP.example.com.:8443/b"):
        assert parse_endpoint(url, allowed_hosts=hosts).host == "shop.example.com"
    assert parse_endpoint("https://[2606:4700:4700::1111]", allowed_hosts=hosts).host == hosts[1]
    for url in (
        "https://example.com",
        "https://a.shop.example.com",
        "https://shop.example.com.evil.example",
        "https://evilshop.example.com",
        "https://evil.example/shop.example.com",
        "https://evil.example/?shop.example.com",
    ):
        assert parse_endpoint(url).host not in hosts
        with pytest.raises(InvalidInputError, match="among the merchant's hosts"):
            parse_endpoint(url, allowed_hosts=hosts)


def test_endpoints_of_one_server_share_their_origin_and_others_do_not():
    def origin(url: str) -> str:
        return parse_endpoint(url, allow_private=True).origin

    same = ["https://a.example", "https://a.example:443/x", "https://A.example./y?z"]
    assert len({origin(url) for url in same}) == 1
    others = [*same[:1], "http://a.example", "https://a.example:8443", "https://b.example"]
    assert len({origin(url) for url in others}) == len(others)
    assert origin("http://[::1]:8080") == "http://[::1]:8080"


# ------------------------------------------------------------------------------ by chance

PIECES = [
    *"https://",
    "://",
    "@",
    ":",
    "[",
    "]",
    "\\",
    "%",
    "%25",
    "?",
    "#",
    ".",
    "..",
    "-",
    "_",
    "0x7f",
    "0177",
    "127",
    "0",
    "1",
    "443",
    "8443",
    "::",
    "::1",
    "ffff",
    "2606:4700::1111",
    "1.1.1.1",
    "127.0.0.1",
    "10.0.0.1",
    "a",
    "B",
    "shop",
    "example",
    "com",
    "localhost",
    "local",
    "svc",
    "\t",
    "\u3002",
    "\uff11",
]
odd_urls = st.lists(st.sampled_from(PIECES), max_size=9).map(lambda it: "https://" + "".join(it))


@repeatable
@given(odd_urls | st.text(max_size=40) | json_values())
@example("https://[2606:4700::1111]shop.example")
@example("https://shop.example[2606:4700::1111]")
def test_what_is_accepted_means_the_same_host_to_the_library_that_dials_it(value):
    try:
        endpoint = parse_endpoint(value)
    except InvalidInputError:
        return
    dialled = urllib3.util.parse_url(endpoint.url)
    assert dialled.scheme == "https"
    assert dialled.auth is None
    assert (dialled.port or 443) == endpoint.port
    assert (dialled.host or "").strip("[]").removesuffix(".") == endpoint.host
    assert endpoint.host == endpoint.host.lower()


@repeatable
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_what_is_accepted_for_everyone_is_accepted_for_development_too(rest):
    try:
        endpoint = parse_endpoint("https://" + rest)
    except InvalidInputError:
        return
    assert parse_endpoint("https://" + rest, allow_private=True) == endpoint


def _digits(number: int, base: int) -> str:
    return {8: f"0{number:o}", 10: str(number), 16: f"0x{number:x}"}[base]


@st.composite
def spellings_for_c(draw):
    """An IPv4 address as the C library reads it: one to four parts, each of three bases."""
    address = draw(v4 | inner_v4)
    count = draw(st.integers(1, 4))
    octets = address.packed
    numbers = [*octets[: count - 1], int.from_bytes(octets[count - 1 :], "big")]
    parts = [_digits(number, draw(st.sampled_from([8, 10, 16]))) for number in numbers]
    return address, ".".join(parts)


@repeatable
@given(spellings_for_c(), st.sampled_from(["", "."]), st.booleans())
def test_an_address_as_only_the_c_library_reads_it_is_refused(spelling, dot, upper):
    address, text = spelling
    assert socket.inet_aton(text) == address.packed
    url = f"https://{text.upper() if upper else text}{dot}/"
    if text == str(address) and is_public(address):
        assert parse_endpoint(url).host == text
    else:
        with pytest.raises(InvalidInputError):
            parse_endpoint(url)


@repeatable
@given(inner_v4 | inner_v6 | v4 | v6)
def test_a_literal_is_accepted_if_it_is_public(address):
    host = f"[{address}]" if address.version == 6 else str(address)
    if is_public(address):
        assert parse_endpoint(f"https://{host}/").host == str(address)
    else:
        with pytest.raises(InvalidInputError, match="not a public address"):
            parse_endpoint(f"https://{host}/")

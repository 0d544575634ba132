"""Endpoints by chance: the guard and the libraries that dial must read a URL alike."""

import socket

import pytest
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st

from harness.addresses import inner_v4, inner_v6, v4, v6
from harness.properties import json_values, repeatable
from mpesa_gateway.domain.endpoint import (
    is_public,
    parse_endpoint,
)
from mpesa_gateway.errors import InvalidInputError

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

import gzip
import json
import zlib
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bodies import body_with
from harness.collecting import every_case
from harness.factories import make_callback
from harness.properties import repeatable
from mpesa_gateway.domain.callback import CallbackUnreadableError, parse_stk_callback
from mpesa_gateway.domain.envelope import (
    MAX_DECODED_BYTES,
    ContradictionError,
    UnreadableBodyError,
    is_same,
    member,
    parse_envelope,
)

BODY = body_with()
TEXT = BODY.decode()


def packed(body: bytes) -> bytes:
    """Equal bytes at any time, so that processes of one run name the same tests."""
    return gzip.compress(body, mtime=0)


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@every_case(
    ("sent", "content_encoding"),
    [
        (BODY, ""),
        (BODY, "identity"),
        (packed(BODY), "gzip"),
        (packed(BODY), "GZIP "),
        (packed(BODY), "x-gzip"),
        # A proxy dropped the header, or unpacked the body and left the header.
        (packed(BODY), ""),
        (BODY, "gzip"),
        (BODY, "deflate"),
        (BODY, "br"),
        (zlib.compress(BODY), "deflate"),
        (raw_deflate(BODY), "deflate"),
        (packed(json.dumps(TEXT).encode()), "gzip"),
        (json.dumps(TEXT).encode(), ""),
        (b"\xef\xbb\xbf" + json.dumps(TEXT).encode(), ""),
        (TEXT.encode("utf-16"), ""),
        (quote_plus(TEXT).encode(), ""),
        (quote_plus(TEXT).encode() + b"=", ""),
        (quote_plus(TEXT).encode() + b"=\r\n", ""),
        (urlencode({"payload": TEXT}).encode(), ""),
        (urlencode({"": TEXT}).encode(), ""),
    ],
    ids=lambda it: repr(it)[:40],
)
def test_what_is_wrapped_once_is_the_same_callback(sent: bytes, content_encoding: str):
    assert parse_stk_callback(sent, content_encoding) == make_callback()


@every_case(
    ("sent", "content_encoding"),
    [
        (json.dumps(json.dumps(TEXT)).encode(), ""),
        (quote_plus(json.dumps(TEXT)).encode(), ""),
        (json.dumps(quote_plus(TEXT)).encode(), ""),
        (quote_plus(quote_plus(TEXT)).encode(), ""),
        (packed(packed(BODY)), "gzip"),
        # Which of the two fields would be meant?
        (urlencode({"a": TEXT, "b": TEXT}).encode(), ""),
        (urlencode({"payload": "hello"}).encode(), ""),
        (packed(BODY)[:-9], "gzip"),
        (packed(BODY) + b"{}", "gzip"),
        (packed(BODY)[:20] + b"\xff" * 20, "gzip"),
        (zlib.compress(BODY)[:-5], "deflate"),
        (zlib.compress(BODY), ""),
        (b"hello world", ""),
        (b"", "gzip"),
        (b"", "deflate"),
    ],
    ids=lambda it: repr(it)[:40],
)
def test_what_would_have_to_be_guessed_is_unreadable(sent: bytes, content_encoding: str):
    with pytest.raises(CallbackUnreadableError):
        parse_stk_callback(sent, content_encoding)


@pytest.mark.parametrize("pack", [packed, zlib.compress, raw_deflate])
def test_a_body_that_unpacks_to_more_than_the_limit_is_never_unpacked_whole(pack):
    most = b'{"a":"' + b"0" * (MAX_DECODED_BYTES - 8) + b'"}'
    encoding = "gzip" if pack is packed else "deflate"
    assert parse_envelope(pack(most), encoding)
    with pytest.raises(UnreadableBodyError, match="too large"):
        parse_envelope(pack(b" " + most), encoding)


@pytest.mark.parametrize("bad", [b"\x80", b"\xe9", b"\xc3", b"\xed\xa0\x80"])
def test_a_byte_that_is_no_utf8_harms_only_what_it_stands_in(bad: bytes):
    prose = BODY.replace(b"processed", b"process" + bad + b"d")
    read = parse_stk_callback(prose)
    assert read.receipt == make_callback().receipt
    assert read.result_desc.isascii()
    for said, field in ((b'"UJ22T8IYOU"', "receipt"), (b'"Amount"', "amount")):
        damaged = BODY.replace(said, said[:-2] + bad + said[-2:])
        assert getattr(parse_stk_callback(damaged), field) is None
    with pytest.raises(CallbackUnreadableError, match="no CheckoutRequestID"):
        parse_stk_callback(BODY.replace(b"ws_CO_", b"ws" + bad + b"CO_"))


@repeatable
@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "deflate", "br", "gzip, gzip"]))
def test_whatever_comes_it_is_an_object_or_unreadable(sent: bytes, content_encoding: str):
    for body in (sent, packed(sent), packed(sent)[:-1], quote_plus(sent).encode()):
        try:
            assert isinstance(parse_envelope(body, content_encoding), dict)
        except UnreadableBodyError:
            continue


@every_case(
    ("one", "other", "same"),
    [
        (0, 0, True),
        (1, 1.0, True),
        (0, False, False),
        (1, True, False),
        (True, True, True),
        ("0", 0, False),
        ([False], [0], False),
        ([1, 2], [1], False),
        ({"a": False}, {"a": 0}, False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1}, {"b": 1}, False),
        (None, None, True),
    ],
)
def test_false_is_not_zero(one, other, same):
    assert is_same(one, other) is same
    assert is_same(other, one) is same


def test_a_member_is_found_in_any_case_and_must_say_one_thing():
    assert member({"resultcode": 0, "ResultCode ": 0}, "ResultCode") == 0
    assert member({"other": 0}, "ResultCode") is None
    with pytest.raises(ContradictionError):
        member({"resultcode": 0, "ResultCode": False}, "ResultCode")

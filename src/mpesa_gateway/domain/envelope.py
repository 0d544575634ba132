"""What a relay between Safaricom and us wraps a callback in, and how it is taken off.

The inbox stores the body as it came. What can be read without guessing is read: a content encoding
that the header or the first bytes name, JSON inside one JSON text or one form field, and bytes that
are no UTF-8 (in prose they are harmless; nothing that settles a payment may contain one). Whatever
is wrapped more than once is unreadable. Seen behind integration platforms and plugins (public
issues).
"""

from __future__ import annotations

import json
import re
import zlib
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

# As much as a body may have on the wire: what is larger is no callback, whatever it unpacks to.
MAX_DECODED_BYTES = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP, _ZLIB, _RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_FORM = re.compile(r"\S+", re.ASCII)


class UnreadableBodyError(ValueError):
    """The body is no JSON object, wrapped once at most. The message never quotes it."""


class ContradictionError(UnreadableBodyError):
    """The body says two things by one name."""

    def __init__(self) -> None:
        super().__init__("contradicts itself")


def parse_envelope(body: bytes, content_encoding: str = "") -> dict[str, Any]:
    """Return the JSON object inside of a body. Raises UnreadableBodyError.

    Numbers with a fraction come as Decimal. A byte that is no UTF-8 comes as a lone surrogate.
    """
    try:
        return _unwrapped(_text(_decompressed(body, content_encoding)))
    except UnreadableBodyError:
        raise
    except RecursionError as error:
        raise UnreadableBodyError("nested too deeply") from error
    except (ValueError, ArithmeticError) as error:
        # A number whose exponent no Decimal holds is an ArithmeticError.
        raise UnreadableBodyError("not JSON") from error


def member(members: dict[str, Any], name: str) -> Any:
    """Return the value of a name in whatever case it is written; None when nobody says it.

    Raises ContradictionError when two spellings have different values.
    """
    wanted = name.lower()
    found = [value for it, value in members.items() if it.strip().lower() == wanted]
    if any(not is_same(found[0], other) for other in found[1:]):
        raise ContradictionError
    return found[0] if found else None


def is_same(one: object, other: object) -> bool:
    """Whether two JSON values are equal. Unlike in Python, `false` is not 0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[it], other[it]) for it in one)
    return one == other


def _decompressed(body: bytes, content_encoding: str) -> bytes:
    """Take off gzip or deflate. A header that outlived its encoding is passed over."""
    if body.startswith(_GZIP_MAGIC):
        # No JSON begins so: this is no guess, although a proxy may have dropped the header.
        return _inflated(body, _GZIP)
    if content_encoding.strip().lower() != "deflate":
        return body
    for format_ in (_ZLIB, _RAW_DEFLATE):
        try:
            return _inflated(body, format_)
        except zlib.error:
            continue
    return body


def _inflated(body: bytes, format_: int) -> bytes:
    inflater = zlib.decompressobj(format_)
    try:
        content = inflater.decompress(body, MAX_DECODED_BYTES + 1)
    except zlib.error as error:
        if format_ == _GZIP:
            raise UnreadableBodyError("not what its content encoding says") from error
        raise
    if len(content) > MAX_DECODED_BYTES:
        raise UnreadableBodyError("too large when it is decompressed")
    if not inflater.eof or inflater.unused_data:
        raise UnreadableBodyError("not what its content encoding says")
    return content


def _text(body: bytes) -> str:
    encoding = json.detect_encoding(body)
    is_utf8 = encoding.startswith("utf-8")
    return body.decode(encoding, "surrogateescape" if is_utf8 else "surrogatepass")


def _unwrapped(text: str) -> dict[str, Any]:
    try:
        parsed = _load(text)
    except UnreadableBodyError:
        raise
    except ValueError:
        parsed = _load(_form_field(text))
    else:
        if isinstance(parsed, str):
            parsed = _load(parsed)
    if not isinstance(parsed, dict):
        raise UnreadableBodyError("no JSON object")
    return parsed


def _form_field(text: str) -> str:
    """Return the JSON of a form with one field: its value, or its name when there is no value."""
    text = text.strip()
    if not _FORM.fullmatch(text):
        raise UnreadableBodyError("not JSON")
    try:
        ((name, value),) = parse_qsl(
            text, keep_blank_values=True, errors="surrogateescape", max_num_fields=1
        )
    except ValueError as error:
        raise UnreadableBodyError("not JSON, nor a form of one field") from error
    return value or name


def _load(text: str) -> Any:
    return json.loads(
        text,
        parse_float=Decimal,
        parse_constant=_refuse_constant,
        object_pairs_hook=_unambiguous,
    )


def _refuse_constant(constant: str) -> None:
    raise UnreadableBodyError(f"{constant} is not JSON")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. A name may repeat, but not with another value: which of the two would be meant?"""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members and not is_same(members[name], value):
            raise ContradictionError
        members[name] = value
    return members

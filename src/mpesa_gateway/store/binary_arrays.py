"""Arrays as Postgres reads them in binary form, for statements that write many rows.

psycopg could make them from lists; it looks at each list and each element in Python, and the
inbox's statement took 0.55 ms for a lone callback instead of 0.43 (docs/performance.md). The layout
is that of `array_recv` in PostgreSQL's `arrayfuncs.c`.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from psycopg import adapters
from psycopg.adapt import Dumper
from psycopg.pq import Format

# Postgres counts from here, in microseconds.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NULL = struct.pack("!i", -1)
_HEAD = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i").pack
_JSONB_VERSION = b"\x01"


class _Array(bytes):
    """One dimension, as it goes over the wire. A subclass for each type, by which psycopg tells."""

    __slots__ = ()
    element_oid = 0


def _array_type(name: str) -> type[_Array]:
    """The class of one element type, known to psycopg."""
    known = adapters.types[name]
    made = type(f"_ArrayOf_{name}", (_Array,), {"element_oid": known.oid, "__slots__": ()})

    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = known.array_oid

        def dump(self, obj: _Array) -> bytes:
            return obj

    adapters.register_dumper(made, ArrayDumper)
    return made


_BOOL, _BYTEA, _INT4, _JSONB, _TEXT, _TIMESTAMPTZ, _UUID = map(
    _array_type, ("bool", "bytea", "int4", "jsonb", "text", "timestamptz", "uuid")
)


def _pack(kind: type[_Array], elements: Sequence[bytes | None]) -> _Array:
    parts = [_HEAD.pack(1, None in elements, kind.element_oid, len(elements), 1)]
    for element in elements:
        if element is None:
            parts.append(_NULL)
        else:
            parts += (_LENGTH(len(element)), element)
    return kind(b"".join(parts))


def bool_array(values: Iterable[bool]) -> bytes:
    """`bool[]`."""
    return _pack(_BOOL, [b"\x01" if value else b"\x00" for value in values])


def bytea_array(values: Iterable[bytes | None]) -> bytes:
    """`bytea[]`."""
    return _pack(_BYTEA, list(values))


def int4_array(values: Iterable[int | None]) -> bytes:
    """`int[]`. Raises struct.error beyond 32 bits."""
    return _pack(_INT4, [None if value is None else _LENGTH(value) for value in values])


def jsonb_array(documents: Iterable[str]) -> bytes:
    """`jsonb[]` of JSON texts."""
    return _pack(_JSONB, [_JSONB_VERSION + document.encode() for document in documents])


def text_array(values: Iterable[str | None]) -> bytes:
    """`text[]`."""
    return _pack(_TEXT, [None if value is None else value.encode() for value in values])


def timestamptz_array(values: Iterable[datetime]) -> bytes:
    """`timestamptz[]`; the times must know their zone."""
    pack = struct.Struct("!q").pack
    return _pack(_TIMESTAMPTZ, [pack((value - _EPOCH) // _MICROSECOND) for value in values])


def uuid_array(values: Iterable[uuid.UUID | None]) -> bytes:
    """`uuid[]`."""
    return _pack(_UUID, [None if value is None else value.bytes for value in values])

"""A name server that lies: over UDP, with another answer each time it is asked, and no TTL.

A zone gives each name its turns; the n-th question of a kind gets the n-th turn, the last one
again and again. A turn is a list of addresses and, as `CNAME name`, of other names of the zone.
"""

from __future__ import annotations

import collections
import ipaddress
import socketserver
import struct
import threading
from collections.abc import Iterator
from typing import Self

Zone = dict[str, list[list[str]]]

PORT = 53
_A, _CNAME, _AAAA = 1, 5, 28
_KINDS = {_A: "A", _AAAA: "AAAA"}
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_IN = 1
# An answer, authoritative, with recursion; and the code for a name that there is not.
_ANSWER, _NO_SUCH_NAME = 0x8580, 3
MAX_ALIASES = 8


class NameServer:
    """Serves a zone on port 53 of an address. `asked` are the questions, as `A shop.example`."""

    def __init__(self, address: str, zone: Zone | None = None) -> None:
        self.asked: list[str] = []
        self._zone = zone or {}
        self._turns = collections.Counter[tuple[int, str]]()
        self._lock = threading.Lock()
        name_server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                question, sock = self.request
                sock.sendto(name_server.answer(question), self.client_address)

        self._server = socketserver.UDPServer((address, PORT), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve(self, zone: Zone) -> None:
        """From now on another zone, from its first turn."""
        with self._lock:
            self._zone = zone
            self._turns.clear()
            self.asked.clear()

    def answer(self, question: bytes) -> bytes:
        """The answer to one datagram."""
        number = _HEADER.unpack_from(question)[0]
        name, end = _read_name(question)
        (kind,) = struct.unpack_from("!H", question, end)
        with self._lock:
            self.asked.append(f"{_KINDS.get(kind, kind)} {name}")
            known = name in self._zone
            records = list(self._records(name, kind))
        code = 0 if known else _NO_SUCH_NAME
        header = _HEADER.pack(number, _ANSWER | code, 1, len(records), 0, 0)
        return header + question[_HEADER.size : end + 4] + b"".join(records)

    def _records(self, name: str, kind: int, aliases: int = 0) -> Iterator[bytes]:
        turns = self._zone.get(name, [])
        if not turns or aliases > MAX_ALIASES:
            return
        turn = turns[min(self._turns[kind, name], len(turns) - 1)]
        self._turns[kind, name] += 1
        for it in turn:
            if it.startswith("CNAME "):
                alias = it.removeprefix("CNAME ")
                yield _record(name, _CNAME, _write_name(alias))
                yield from self._records(alias, kind, aliases + 1)
                continue
            address = ipaddress.ip_address(it)
            if kind == (_A if address.version == 4 else _AAAA):
                yield _record(name, kind, address.packed)


def _read_name(question: bytes) -> tuple[str, int]:
    """The name that is asked for, in lower case, and where it ends."""
    labels, at = [], _HEADER.size
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels), at + 1


def _write_name(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _record(name: str, kind: int, data: bytes) -> bytes:
    """A resource record that nobody may keep: its TTL is 0."""
    return _write_name(name) + _RECORD.pack(kind, _IN, 0, len(data)) + data

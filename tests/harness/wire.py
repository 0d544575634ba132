"""HTTP by hand: what no client library would send, or read."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Reply:
    """One answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request_bytes(
    method: str, path: str, *headers: str, body: bytes = b"", length: int | None = None
) -> bytes:
    """A request with a `Content-Length` that may lie."""
    head = [f"{method} {path} HTTP/1.1", "Host: gateway", *headers]
    if body or length is not None:
        head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


class Wire:
    """A connection to the API. Close it, or use it in a `with` block."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self.sock = socket.create_connection((parts.hostname, parts.port), timeout=timeout_s)
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self) -> Reply:
        """The next answer. Raises EOFError when the connection was closed instead."""
        line = self._file.readline()
        if not line:
            raise EOFError
        headers = {}
        while (field := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self._file.read(int(headers.get("content-length", "0")))
        return Reply(int(line.split()[1]), headers, body)

    def is_cut(self) -> bool:
        """Whether the peer closes the connection, within the time-out, without another byte."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True


def exchange(url: str, data: bytes) -> Reply:
    """Send bytes on a connection of their own; the first answer."""
    with Wire(url) as wire:
        wire.send(data)
        return wire.read()

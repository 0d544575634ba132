"""Sockets that obey one deadline for a whole exchange, and that know whether anything left.

A time-out per read lets a hostile peer drip a byte at a time for ever. Here every operation of an
exchange gets what is left of one deadline, from name look-up to the last byte. The bytes that may
come back are limited here too, because a library reads heads, chunk sizes and trailers on its own.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH

# Status lines, headers, chunk sizes and trailers of one answer. Servers themselves refuse heads
# above 8 to 32 KiB.
MAX_FRAMING_BYTES = 48 * 1024
# Of the longest answer that we read, which is Daraja's.
MAX_BODY_BYTES = 64 * 1024


class AnswerTooLongError(OSError):
    """The peer has sent more than one exchange may receive."""


@dataclass
class Exchange:
    """One request and its answer. `sent` turns true when the first byte of the request leaves."""

    deadline: float
    bytes_left: int
    sent: bool = False

    def remaining_s(self) -> float:
        """Seconds left. Raises TimeoutError when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left


_LOCAL = threading.local()


@contextmanager
def exchange(seconds: float, *, max_body_bytes: int = MAX_BODY_BYTES) -> Iterator[Exchange]:
    """Limit what this thread's sockets do inside: the time for all of it, the bytes received."""
    current = Exchange(time.monotonic() + seconds, MAX_FRAMING_BYTES + max_body_bytes)
    _LOCAL.exchange = current
    try:
        yield current
    finally:
        _LOCAL.exchange = None


def current_exchange() -> Exchange:
    """The exchange of this thread. Outside of one there is no time at all, so nothing is sent."""
    found: Exchange | None = getattr(_LOCAL, "exchange", None)
    assert found is not None, "a socket was used outside of an exchange"
    return found


class _Deadline:
    """Mixed into both kinds of socket: each blocking call gets what is left of the time."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Receive within the exchange's time and bytes. Raises TimeoutError, AnswerTooLongError."""
        current = current_exchange()
        self.settimeout(current.remaining_s())  # type: ignore[attr-defined]
        if current.bytes_left <= 0:
            raise AnswerTooLongError("the answer is too long")
        received: int = super().recv_into(*args, **kwargs)  # type: ignore[misc]
        current.bytes_left -= received
        return received

    def send(self, *args: Any) -> int:
        """Send within the exchange's time; from here on the peer may have the request."""
        self._arm_and_note()
        return super().send(*args)  # type: ignore[misc, no-any-return]

    def sendall(self, *args: Any) -> None:
        """Send within the exchange's time; from here on the peer may have the request."""
        self._arm_and_note()
        super().sendall(*args)  # type: ignore[misc]

    def _arm_and_note(self) -> None:
        current = current_exchange()
        self.settimeout(current.remaining_s())  # type: ignore[attr-defined]
        current.sent = True


class DeadlineSocket(_Deadline, socket.socket):
    """A plain socket."""


class DeadlineSSLSocket(_Deadline, ssl.SSLSocket):
    """A TLS socket. Its handshake is no part of the request, so it does not count as sent."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands within the exchange's time."""
        self.settimeout(current_exchange().remaining_s())
        super().do_handshake(block)


@cache
def tls_context(extra_ca: str | None = None) -> ssl.SSLContext:
    """Verified TLS 1.2 or later, on sockets with deadlines. `extra_ca` is a PEM file.

    It trusts what the machine trusts, and the bundle that requests brings. One for the process:
    reading these roots takes OpenSSL 3 some 100 ms of CPU.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = DeadlineSSLSocket
    if extra_ca is not None:
        context.load_verify_locations(extra_ca)
    return context

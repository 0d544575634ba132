"""uvicorn's HTTP protocol with our limits and deadlines, and the fast path of callbacks.

One per connection. What uvicorn leaves open is bounded here: slow heads, long heads, the framing
of bodies.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mpesa_gateway.api.callbacks.fast_path import FAST_PATH, Call, FastPath, find_token
from mpesa_gateway.api.connections import CONNECTIONS, Connections

# A client gets this long for its request line and headers.
HEADER_TIMEOUT_S = 10.0
MAX_HEADER_BYTES = 32 * 1024
# Of a chunked body, what is no data: sizes, extensions, trailer. The smallest chunk, of one byte,
# has five bytes of it, so each byte of data allows for some.
MAX_FRAMING_BYTES = 32 * 1024
FRAMING_PER_BYTE = 8
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 2\r\n"
    b"connection: close\r\n\r\n"
)
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
BAD_VERSION = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
# How long a connection between two requests is kept. Longer than any proxy keeps it: the one that
# closes first must be the client, since a POST that crosses the server's FIN has no answer, and
# proxies do not send it again. nginx and AWS use 60 s, Google's load balancers 600 s.
KEEP_ALIVE_S = 620
# So many connections may stay that long; beyond, each has to be of use, since places are few.
CROWDED = 512
CROWDED_KEEP_ALIVE_S = 15
# After SIGTERM's drain a connection that nobody used waits so long for its next request.
LINGER_S = 5.0
LOOK_AGAIN_S = 0.05
BODY_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a deadline and a limit for the head of each request.

    What is neither head nor data of a body has a limit too: the parser keeps a trailer in memory.
    The same deadline holds for the first byte of a body, which falcon waits for before any code of
    ours runs, and for the rest of a body whose request is answered already: nobody reads it.
    """

    header_timeout_s = HEADER_TIMEOUT_S
    max_header_bytes = MAX_HEADER_BYTES
    max_framing_bytes = MAX_FRAMING_BYTES
    crowded = CROWDED

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._admitted: Connections | None = None
        self._head_bytes = 0
        self._in_head = True
        self._head_begun = False
        self._framing_bytes = 0
        self._data_bytes = 0
        self._latest: RequestResponseCycle | None = None
        # The bytes that are being parsed, those to parse again, and the head they begin with.
        self._parsing = b""
        self._again = b""
        self._head_without_offer: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection owes its first head."""
        super().connection_made(transport)
        limits: Connections | None = self.app_state.get(CONNECTIONS)
        if limits is not None and self.client is not None:
            if not limits.admit(self.client[0]):
                transport.write(TOO_MANY)
                transport.close()
                return
            self._admitted = limits
        # asyncio does it only for sockets that were made with IPPROTO_TCP. Without it, the body
        # of a kept-alive connection's answer waits for the peer's delayed ACK, 40 ms.
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        self._disarm()
        if self._admitted is not None and self.client is not None:
            self._admitted.leave(self.client[0])
            self._admitted = None
        if isinstance(self.cycle, Call):
            self.cycle.let_go()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives before a head is complete, and what is no data behind it."""
        was_in_head = self._in_head
        if was_in_head:
            self._head_bytes += len(data)
        self._data_bytes = 0
        self._parsing = data
        super().data_received(data)
        while self._again:
            self._parsing, self._again = self._again, b""
            super().data_received(self._parsing)
        if self._in_head:
            # Behind the parser: a request that came whole needs no timer.
            if self._head_begun or (was_in_head and self._head_bytes):
                self._arm()
            if self._head_bytes > self.max_header_bytes:
                self._refuse_head()
            return
        if not was_in_head:
            self._count_framing(len(data))
        if isinstance(self.cycle, Call):
            self._arm()
            if not self.cycle.response_complete:
                self.cycle.hold()

    def on_body(self, body: bytes) -> None:
        """Data of a body, without its framing. From its first byte on the reader has a deadline."""
        self._data_bytes += len(body)
        super().on_body(body)
        if not self.cycle.response_complete and not isinstance(self.cycle, Call):
            self._disarm()

    def _count_framing(self, received: int) -> None:
        framing = received - self._data_bytes
        allowed = FRAMING_PER_BYTE * self._data_bytes
        # Never below zero: much data would earn the right to a long trailer.
        self._framing_bytes = max(0, self._framing_bytes + framing - allowed)
        if self._framing_bytes > self.max_framing_bytes:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """The first byte of a head, perhaps in one piece with the request before it."""
        self._head_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there. Raises ValueError, which ends the parser, when it is too long."""
        self._head_begun = False
        self._disarm()
        # Counted again, because a long head may have come in one piece.
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.max_header_bytes:
            self._refuse_head()
            raise ValueError("the head is too long")
        self._refuse_what_is_not_http_1()
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._head_without_offer = self._without_offer()
            return
        self._in_head, self._framing_bytes = False, 0
        if not self._goes_the_short_way():
            super().on_headers_complete()
            if not self.pipeline:
                self._arm()
        self._latest = self.cycle
        if STOPPING.is_set:
            # The answer says so: a request on a connection that closes under it would be lost.
            self.cycle.keep_alive = False

    def _refuse_what_is_not_http_1(self) -> None:
        """Raises ValueError, which ends the parser, for another version and for a doubtful host."""
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if version not in ("1.0", "1.1"):
            self._end_with(BAD_REQUEST if version == "0.9" else BAD_VERSION)
            raise ValueError("the version is not HTTP/1.0 or 1.1")
        # RFC 9112, section 3.2.
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            self._end_with(BAD_REQUEST)
            raise ValueError("there is not one Host header")

    def _without_offer(self) -> bytes:
        """The head that was parsed, without its offer of another protocol."""
        version = self.parser.get_http_version().encode()
        lines = [b" ".join([self.parser.get_method(), self.url, b"HTTP/" + version])]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [it.strip() for it in value.split(b",")]
                value = b", ".join(it for it in tokens if it.lower() != b"upgrade")  # noqa: PLW2901
            if name != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def _unsupported_upgrade_warning(self) -> None:
        """Read the request as if it offered nothing (RFC 9110, section 7.8).

        The parser stops behind a head that offers another protocol, as Java's HttpClient does with
        every request to a plain http URL: it would lose the body, and answer for an empty one.
        """
        error = sys.exc_info()[1]
        assert isinstance(error, httptools.HttpParserUpgrade), error
        if self._head_without_offer is None:
            # CONNECT: what follows its head belongs to nobody.
            self.cycle.keep_alive = False
            return
        self._again = self._head_without_offer + self._parsing[error.args[0] :]
        self._head_without_offer = None
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _goes_the_short_way(self) -> bool:
        """Take the request for a callback with nothing unusual about it, if it is one."""
        fast_path: FastPath | None = self.app_state.get(FAST_PATH)
        if fast_path is None or self.parser.get_method() != b"POST":
            return False
        token = find_token(self.url, self.headers)
        if token is None or self._is_occupied() or self.parser.get_http_version() != "1.1":
            return False
        self.cycle = Call(
            fast_path,
            token,
            headers=self.headers,
            client=self.client,
            default_headers=self.server_state.default_headers,
            transport=self.transport,
            keep_alive=self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        return True

    def _is_occupied(self) -> bool:
        """Whether an earlier request comes first, or the whole process is at its limit."""
        waits = self._latest is not None and not self._latest.response_complete
        most = self.limit_concurrency
        is_full = most is not None and max(len(self.connections), len(self.tasks)) >= most
        return waits or is_full or self.flow.write_paused

    def on_message_complete(self) -> None:
        """The next head may take its time to begin (keep-alive), not to end."""
        if self._head_without_offer is not None:
            return
        super().on_message_complete()
        self._disarm()
        self._in_head, self._head_bytes = True, 0
        if isinstance(self.cycle, Call) and not self.cycle.response_complete:
            self.cycle.begin()

    def on_response_complete(self) -> None:
        """Answered; what is still to come of the body is thrown away, but not for ever.

        Or the next request of the pipeline begins, and its body has its time from now on.
        """
        is_crowded = len(self.connections) > self.crowded
        self.timeout_keep_alive = CROWDED_KEEP_ALIVE_S if is_crowded else KEEP_ALIVE_S
        super().on_response_complete()
        if not self._in_head:
            self._arm()

    def shutdown(self) -> None:
        """The server ends. While it drains, what is idle may still bring one request.

        Its answer says `connection: close`. To close at once would lose what is on its way.
        """
        if STOPPING.is_set and self._is_between_requests():
            self.loop.call_later(LINGER_S, self._close_unless_used)
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Idle for too long."""
        self._close_unless_used()

    def _is_between_requests(self) -> bool:
        return self._in_head and (self._latest is None or self._latest.response_complete)

    def _close_unless_used(self) -> None:
        """Close what is idle, but never over a request that the kernel has and we have not read.

        After a moment without CPU, timers run before sockets are read (libuv's order).
        """
        if self.transport.is_closing() or not self._is_between_requests():
            return
        if self._head_begun or is_readable(self.transport.get_extra_info("socket")):
            self.loop.call_later(LOOK_AGAIN_S, self._close_unless_used)
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Unless it was answered already."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self._end_with(HEAD_TOO_LARGE)

    def _end_with(self, answer: bytes) -> None:
        """Answer the request that is being read, unless an earlier one waits for its answer."""
        latest = self._latest
        if self._in_head:
            is_next = latest is None or latest.response_complete
        else:
            is_next = latest is not None and not latest.response_started and not self.pipeline
        if is_next:
            self.transport.write(answer)
        self.transport.close()

    def _arm(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.header_timeout_s, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_head:
            self.transport.close()
        elif isinstance(self.cycle, Call) and not self.cycle.response_complete:
            self.cycle.too_slow()
        else:
            self._end_with(BODY_TOO_SLOW)


def is_readable(sock: Any) -> bool:
    """Whether a connection has bytes or its peer's end to read, or a listener somebody to accept.

    `sock` needs no more than a `fileno`: uvloop's is no socket.
    """
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Stopping:
    """Whether SIGTERM has come. One per process."""

    def __init__(self) -> None:
        self.is_set = False

    def __call__(self) -> bool:
        """Whether it has come."""
        return self.is_set


STOPPING = Stopping()

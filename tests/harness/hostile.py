"""A peer that answers raw bytes: any status line, any framing, any encoding, without end."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Self

from harness.receiver import Answer

CHUNK = 64 * 1024
BOMB_BYTES = 100 * 1024 * 1024
_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    """What to send for one request, piece by piece. `status` is None when no client can know it."""

    name: str
    pieces: Callable[[], Iterable[bytes]]
    status: int | None = None
    # Whether what follows the head is all there, in no encoding, and below every limit.
    readable: bool = False


class HostilePeer:
    """A server on a raw socket. Each connection gets one `reply` and is closed."""

    def __init__(self) -> None:
        self.reply = Reply("nothing", list)
        self.requests = 0
        self.most_sent = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHUNK)
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if not _read_request(connection):
            return
        self.requests += 1
        sent = 0
        try:
            for piece in self.reply.pieces():
                connection.sendall(piece)
                sent += len(piece)
            connection.shutdown(socket.SHUT_WR)
        finally:
            self.most_sent = max(self.most_sent, sent)


def _read_request(connection: socket.socket) -> bool:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(CHUNK)
        if not piece:
            return False
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0 and (piece := connection.recv(CHUNK)):
        missing -= len(piece)
    return True


STATUS_LINES: dict[bytes, int | None] = {
    b"HTTP/1.1 100 Continue": None,
    b"HTTP/1.1 101 Switching Protocols": 101,
    b"HTTP/1.1 103 Early Hints": None,
    **{
        b"HTTP/1.1 %d Whatever" % status: status
        for status in (
            200, 201, 204, 206, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 403, 404, 410,
            429, 451, 500, 503, 599, 600, 999,
        )
    },
    b"HTTP/1.1 000 Nothing": None,
    b"HTTP/1.1 1000 Much": None,
    b"HTTP/1.1 -20 Less": None,
    b"HTTP/9.9 200 OK": None,
    b"SSH-2.0-OpenSSH_9.6": None,
    b"\x00\xff\xfe": None,
    b"": None,
}  # fmt: skip
ENCODINGS = ("", "gzip", "deflate", "br", "zstd", "gzip, gzip", "lies")
SIZES = ("1 B", "100 MB", "endless")


@cache
def bomb(encoding: str) -> bytes:
    """100 MB of zeros when decoded. What has no encoder here is gzip under a false name."""
    encoder = zlib.compressobj() if encoding == "deflate" else zlib.compressobj(wbits=31)
    zeros = bytes(1024 * 1024)
    parts = [encoder.compress(zeros) for _ in range(BOMB_BYTES // len(zeros))]
    bomb = b"".join([*parts, encoder.flush()])
    return gzip.compress(bomb) if encoding == "gzip, gzip" else bomb


def _body(encoding: str, size: str) -> Iterator[bytes]:
    if encoding in ("", "lies"):
        piece = b"x" if size == "1 B" else b"x" * CHUNK
        yield from {
            "1 B": itertools.repeat(piece, 1),
            "100 MB": itertools.repeat(piece, BOMB_BYTES // CHUNK),
            "endless": itertools.repeat(piece),
        }[size]
    elif size == "1 B":
        yield gzip.compress(b"x")
    elif size == "100 MB":
        yield bomb(encoding)
    else:
        yield from itertools.repeat(bomb(encoding))


def replies() -> list[Reply]:
    """Every status line in every encoding and size, with and without Location."""
    return [
        _reply(line, status, encoding, size, location=location)
        for (line, status), encoding, size, location in itertools.product(
            STATUS_LINES.items(), ENCODINGS, SIZES, (False, True)
        )
    ]


def _reply(line: bytes, status: int | None, encoding: str, size: str, *, location: bool) -> Reply:
    head = line + b"\r\nConnection: close\r\n"
    if encoding:
        head += b"Content-Encoding: %s\r\n" % (b"gzip" if encoding == "lies" else encoding.encode())
    if location:
        head += b"Location: http://127.0.0.1:1/\r\n"
    return Reply(
        f"{line!r} {encoding or 'plain'} {size}{' Location' if location else ''}",
        lambda: itertools.chain([head + b"\r\n"], _body(encoding, size)),
        status,
        readable=status in (204, 304) or (size == "1 B" and not encoding),
    )


def _head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Connection: close", *lines, b"", b""])


def _of(name: str, *pieces: bytes, status: int | None = 200, readable: bool = False) -> Reply:
    return Reply(name, lambda: pieces, status, readable)


CHUNKED = b"Transfer-Encoding: chunked"


def badly_framed() -> list[Reply]:
    """Heads that are bombs, chunks of bad sizes, lengths and values that are none."""
    return [
        Reply("100 continued without end", lambda: itertools.repeat(_head(status=b"100 Go"))),
        Reply("103 without end", lambda: itertools.repeat(_head(b"a: b", status=b"103 Hint"))),
        Reply("a status line without end", lambda: itertools.repeat(b"HTTP/1.1 200 " * 5000)),
        Reply(
            "headers without end",
            lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"a: b\r\n" * 9)),
        ),
        _of("a header of 1 MB", _head(b"a: " + b"x" * 1_000_000), status=None),
        Reply(
            "trailers without end",
            lambda: itertools.chain(
                [_head(CHUNKED) + b"1\r\nx\r\n0\r\n"], itertools.repeat(b"a: b\r\n" * 1000)
            ),
            200,
        ),
        Reply(
            "a chunk size without end",
            lambda: itertools.chain([_head(CHUNKED) + b"1"], itertools.repeat(b"0" * CHUNK)),
            200,
        ),
        Reply(
            "tiny chunks without end",
            lambda: itertools.chain([_head(CHUNKED)], itertools.repeat(b"1\r\nx\r\n" * 1000)),
            200,
        ),
        *(
            _of(f"chunk size {size[:20]!r}", _head(CHUNKED) + size + b"\r\nx\r\n0\r\n\r\n")
            for size in (b"zz", b"-5", b"f" * 400, b"", b"0x1", b"1;" + b"e" * 9000, b"\xff", b"5")
        ),
        *(
            _of(f"length {it[:20]!r}", _head(b"Content-Length: " + it) + b"x", status=status)
            for it, status in (
                (b"-1", 200), (b"9" * 5000, 200), (b"abc", 200), (b"1e400", 200),
                (b"99", 200), (b"1, 2", None), (b"\xb2", 200),
            )
        ),
        _of("cut in the head", b"HTTP/1.1 200 OK\r\nContent-"),
        _of("nothing", status=None),
        _of("NUL in a header", _head(b"X: a\x00b", b"Content-Length: 1") + b"x", readable=True),
        _of("folded", _head(b"X: a", b" b: c", b"Content-Length: 1") + b"x", readable=True),
        _of("no colon", _head(b"X", b"Content-Length: 1") + b"x"),
        *(
            _of(
                f"location {location[:20]!r}",
                _head(b"Location: " + location, b"Content-Length: 1", status=b"302 Found") + b"x",
                status=302,
                readable=True,
            )
            for location in (b"\xff\xfe", b"http://[::1", b"//", b"http://a:99999999/", b"?" * 9000)
        ),
        *(
            _of(
                f"cookie {cookie[:30]!r}",
                _head(b"Set-Cookie: " + cookie, b"Content-Length: 1") + b"x",
                readable=True,
            )
            for cookie in (
                b"a=b; Expires=Mon, 99999999999999999999 Jan 2024 00:00:00 GMT",
                b"a=b; Max-Age=" + b"9" * 400,
                b"a=b; Expires=Wed, 01 Jan 0000 99:99:99 +9999",
                b"a=" + b"\xff" * 4000,
            )
        ),
        *(
            _of(
                f"Retry-After {value[:40]!r}",
                _head(b"Retry-After: " + value, b"Content-Length: 0", status=b"503 Busy"),
                status=503,
                readable=True,
            )
            for value in RETRY_AFTERS
        ),
    ]  # fmt: skip


RETRY_AFTERS = (
    b"Mon, 99999999999999999999 Jan 2024 00:00:00 GMT",
    b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    b"Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
    b"Mon, 01 Jan 0001 00:00:00 +2359",
    b"Fri, 31 Dec 9999 23:59:59 -2359",
    b"Mon, 01 Jan 2024 99:99:99 GMT",
    b"1e400",
    b"9" * 5000,
    b"999999999",
    b"-1",
    b"\xb2",
    b"Infinity",
    b"NaN",
    b"",
    b" , ",
    b"Mon,",
    b"\x00",
)


def raw(pieces: Callable[[], Iterable[bytes]]) -> Answer:
    """An answer of raw bytes; the gateway may hang up at any time."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        try:
            for piece in pieces():
                handler.wfile.write(piece)
        except OSError:
            return

    return Answer(act=act)


def peak_bytes() -> int:
    """The most memory that this process held since `forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+([0-9]+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak() -> int:
    """Begin to measure anew; what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_bytes()

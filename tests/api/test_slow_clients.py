"""Clients that are slow on purpose: each is cut off at its limit, and holds nobody up."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import requests

from api.conftest import ApiProcess
from harness.callbacks import ACCEPTED
from harness.initiate import SILENT
from harness.settings import API_KEY
from harness.wire import Wire, request_bytes
from mpesa_gateway.api.bodies import BODY_TIMEOUT_S
from mpesa_gateway.api.protocol import CROWDED, CROWDED_KEEP_ALIVE_S, HEADER_TIMEOUT_S

pytestmark = pytest.mark.e2e

DRIP_EVERY_S = 0.25
# A limit may be late on a busy machine, never early.
EARLY_S = 0.5
LATE_S = 6.0
# Longer than a client may take for its head; the answer must come all the same.
PUSH_S = 12.0
SLOW_KEY = f"X-Internal-Secret: {API_KEY}"
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
LIVE = request_bytes("GET", "/livez")


@dataclass(frozen=True)
class Client:
    """Sends `first`, then `drop` again and again; `statuses` and the end after `limit_s` follow."""

    first: bytes
    drop: bytes
    statuses: list[int]
    limit_s: float


def pushed_slowly() -> bytes:
    """A payment, and the line end that some old clients send behind a body."""
    body = {
        "amount": "10",
        "phone": f"25470000{SILENT}",
        "webhook_url": "http://127.0.0.1:9999/hook",
        "idempotency_key": str(uuid.uuid4()),
    }
    data = json.dumps(body).encode()
    return request_bytes("POST", "/initiate", SLOW_KEY, JSON, "Connection: close", body=data)


CLIENTS = {
    "says nothing": Client(b"", b"", [], HEADER_TIMEOUT_S),
    "head": Client(b"GET /livez HTTP/1.1\r\nX-Slow: ", b"a", [], HEADER_TIMEOUT_S),
    "method": Client(b"", b"\r\n", [], HEADER_TIMEOUT_S),
    "second head": Client(LIVE + b"GET /livez?", b"a", [200], HEADER_TIMEOUT_S),
    "blank lines after an answer": Client(LIVE, b"\r\n", [200], HEADER_TIMEOUT_S),
    "kept alive in a crowd, idle": Client(LIVE, b"", [200], CROWDED_KEEP_ALIVE_S),
    "second head begun, then idle": Client(LIVE + b"GET /l", b"", [200], HEADER_TIMEOUT_S),
    "body that never begins": Client(
        request_bytes("POST", "/callback", length=1000), b"", [408], HEADER_TIMEOUT_S
    ),
    "chunk that never begins": Client(
        request_bytes("POST", "/callback", CHUNKED) + b"4;slow=", b"a", [408], HEADER_TIMEOUT_S
    ),
    "second body that never begins": Client(
        LIVE + request_bytes("POST", "/callback", length=1000), b"", [200, 408], HEADER_TIMEOUT_S
    ),
    "body of a payment": Client(
        request_bytes("POST", "/initiate", SLOW_KEY, JSON, length=1000), b" ", [408], BODY_TIMEOUT_S
    ),
    "body of a callback": Client(
        request_bytes("POST", "/callback", length=1000) + b"slow", b"a", [408], BODY_TIMEOUT_S
    ),
    "chunks of a callback": Client(
        request_bytes("POST", "/callback", CHUNKED),
        b"4\r\nslow\r\n",
        [408],
        BODY_TIMEOUT_S,
    ),
    "trailer of a callback": Client(
        request_bytes("POST", "/callback", CHUNKED) + b"4\r\nslow\r\n0\r\nX-Slow: ",
        b"a",
        [408],
        BODY_TIMEOUT_S,
    ),
    "body that nobody waits for": Client(
        request_bytes("POST", "/initiate", JSON, length=1000), b" ", [401], HEADER_TIMEOUT_S
    ),
    "blank line before a late answer": Client(pushed_slowly() + b"\r\n", b"", [201], PUSH_S),
}


@dataclass(frozen=True)
class Ending:
    statuses: list[int]
    after_s: float


def ending_of(url: str, client: Client) -> Ending:
    """What it was answered until its connection was closed, and when that was."""
    said, begun = b"", time.monotonic()
    with connect(url) as sock:
        sock.settimeout(DRIP_EVERY_S)
        sock.sendall(client.first)
        while (after_s := time.monotonic() - begun) < client.limit_s + 3 * LATE_S:
            try:
                piece = sock.recv(65536)
            except TimeoutError:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(client.drop)
                continue
            except ConnectionError:
                piece = b""
            if not piece:
                break
            said += piece
    statuses = [int(part.split()[0]) for part in said.split(b"HTTP/1.1 ")[1:]]
    return Ending(statuses, after_s)


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=15)


@pytest.fixture(scope="module")
def crowd(api_process: ApiProcess) -> Iterator[list[Wire]]:
    """As many connections as may stay idle for long, each of them used once."""
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(api_process.url)) for _ in range(CROWDED)]
        for wire in wires:
            wire.send(LIVE)
            assert wire.read().status == 200
        yield wires


@pytest.fixture(scope="module")
def endings(api_process: ApiProcess, crowd: list[Wire]) -> Iterator[dict[str, Ending]]:
    """All of them at once: it takes as long as the slowest."""
    assert len(crowd) == CROWDED
    api_process.simulator.change(push_delay=PUSH_S)
    with ThreadPoolExecutor(len(CLIENTS)) as threads:
        found = threads.map(lambda client: ending_of(api_process.url, client), CLIENTS.values())
        yield dict(zip(CLIENTS, found, strict=True))
    api_process.simulator.change(push_delay=0.0)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_slow_client_is_cut_off_at_its_limit(endings: dict[str, Ending], name: str) -> None:
    client, ending = CLIENTS[name], endings[name]

    assert ending.statuses == client.statuses
    assert client.limit_s - EARLY_S < ending.after_s < client.limit_s + LATE_S


def test_who_was_there_before_the_crowd_is_kept_alive(
    crowd: list[Wire], endings: dict[str, Ending]
) -> None:
    """A proxy keeps connections for minutes: one that we close under a request loses a callback."""
    assert endings["kept alive in a crowd, idle"].after_s > CROWDED_KEEP_ALIVE_S - EARLY_S
    assert all(is_open(wire.sock) for wire in crowd)


def test_nothing_of_a_callback_that_came_too_slowly_is_kept(
    api_process: ApiProcess, endings: dict[str, Ending]
) -> None:
    assert endings["body of a callback"].statuses == [408]
    assert api_process.rows("SELECT FROM callbacks WHERE body LIKE 'slow%%'") == []


DRIPPING = [
    (b"GET /livez HTTP/1.1\r\nX-Slow: ", b"a"),
    (request_bytes("POST", "/callback", length=100_000), b"a"),
    (request_bytes("POST", "/initiate", SLOW_KEY, JSON, length=50_000), b" "),
]


def test_hundreds_of_dripping_connections_hold_nobody_up(api_process: ApiProcess) -> None:
    begun = time.monotonic()
    live_s, callback_s = [], []
    with ExitStack() as stack:
        clients = []
        for first, drop in DRIPPING * 100:
            sock = stack.enter_context(connect(api_process.url))
            sock.sendall(first)
            clients.append((sock, drop))
        for number in range(8):
            if number and time.monotonic() - begun > HEADER_TIMEOUT_S / 2:
                break  # a machine that does something else as well; what was measured counts
            for sock, drop in clients:
                sock.sendall(drop)
            live = requests.get(f"{api_process.url}/livez", timeout=15)
            callback = requests.post(
                f"{api_process.url}/callback", data=b"among drips %d" % number, timeout=15
            )
            assert live.status_code == 200
            assert callback.text == ACCEPTED
            live_s.append(live.elapsed.total_seconds())
            callback_s.append(callback.elapsed.total_seconds())
        assert time.monotonic() - begun < HEADER_TIMEOUT_S, "too slow a machine for this test"
        assert all(is_open(sock) for sock, _ in clients)

    # The best of them, for a machine that does something else as well.
    assert min(live_s) < 1
    assert min(callback_s) < 1


def is_open(sock: socket.socket) -> bool:
    """Whether the peer has neither answered nor closed it."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False

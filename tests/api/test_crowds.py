"""One address that takes all the connections it gets."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from api.conftest import ApiProcess
from harness.wire import request_bytes
from mpesa_gateway.api.connections import MAX_PER_ADDRESS

TRIED = MAX_PER_ADDRESS + 100
LIVE = request_bytes("GET", "/livez")


@pytest.fixture(autouse=True)
def _enough_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = TRIED + 512
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("too few open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def first_line(client: socket.socket) -> bytes:
    client.sendall(LIVE)
    return client.recv(4096).split(b"\r\n", 1)[0]


def test_one_address_keeps_no_other_out(api_process: ApiProcess) -> None:
    parts = urlsplit(api_process.url)
    where = (str(parts.hostname), int(parts.port or 0))
    with contextlib.ExitStack() as stack:

        def connect(source: str) -> socket.socket:
            return stack.enter_context(
                socket.create_connection(where, timeout=30, source_address=(source, 0))
            )

        crowd = [connect("127.0.0.2") for _ in range(MAX_PER_ADDRESS)]
        assert first_line(crowd[-1]) == b"HTTP/1.1 200 OK"
        for _ in range(TRIED - MAX_PER_ADDRESS):
            refused = connect("127.0.0.2")
            assert refused.recv(4096).startswith(b"HTTP/1.1 503 ")
            assert refused.recv(1) == b""

        assert first_line(connect("127.0.0.3")) == b"HTTP/1.1 200 OK"
        assert first_line(crowd[0]) == b"HTTP/1.1 200 OK"

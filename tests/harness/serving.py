"""The API in this process, behind a real socket: real HTTP, and coverage that sees it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from harness.waiting import wait_for
from mpesa_gateway.api.app import create_app
from mpesa_gateway.api.protocol import BoundedProtocol
from mpesa_gateway.domain.work import Work
from mpesa_gateway.services import Services


@contextmanager
def serve(
    services: Services, notify: Callable[[list[Work]], None], sock: socket.socket
) -> Iterator[str]:
    """The API's base URL, for as long as the block runs. `sock` is bound already."""
    app = create_app(services, notify=notify)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run([sock]))
    thread.start()
    try:
        wait_for(lambda: server.started, what="the API to start")
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


def bound_socket() -> socket.socket:
    """A listening socket on a free port of 127.0.0.1."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    return sock

"""`/metrics`, `/livez` and `/merchants` of a process, on a port of their own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from mpesa_gateway.errors import ConfigError

READ_TIMEOUT_S = 5.0


def bind_metrics_port(host: str, port: int) -> socket.socket | None:
    """The listening socket, None when metrics are off. Raises ConfigError when it is in use.

    Bound before a process forks or starts its work, so that the mistake shows at once.
    """
    if port == 0:
        return None
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(16)
    except OSError as error:
        sock.close()
        problem = (
            f"MPESA_METRICS_PORT {port} cannot be used ({error.strerror}): another process has it;"
            " choose another one, or 0 to switch metrics off"
        )
        raise ConfigError([problem]) from error
    return sock


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """The socket is bound already; a name look-up of the host would only take time."""
        self.server_name, self.server_port = "localhost", int(self.server_address[1])
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = READ_TIMEOUT_S

    def log_message(self, *_: object) -> None:
        """Scrapes are not worth a line."""


def serve_metrics(
    sock: socket.socket, is_live: Callable[[], bool], report: Callable[[], dict[str, Any]]
) -> None:
    """Serve in the background, for as long as the process lives. `report` is of its merchants."""
    metrics_app = make_wsgi_app()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            answer: Iterable[bytes] = metrics_app(environ, start_response)
            return answer
        if path == "/merchants":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(report()).encode()]
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if path == "/livez":
            live = is_live()
            start_response("200 OK" if live else "503 Service Unavailable", headers)
            return [b"ok\n" if live else b"stuck\n"]
        start_response("404 Not Found", headers)
        return [b"/metrics, /livez or /merchants\n"]

    server = _Server(sock.getsockname()[:2], _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = sock
    server.server_bind()
    server.set_app(app)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

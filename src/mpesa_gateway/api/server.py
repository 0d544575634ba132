"""`mpesa-gateway api`: gunicorn as the process manager, uvicorn as its worker.

One worker process per pod; replicas scale it (docs/decisions/0001). The limits that the frameworks
leave open are set here: slow headers, draining on SIGTERM, open files.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from types import FrameType
from typing import Any

import uvicorn
from falcon.asgi import App, Request, Response
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from prometheus_client import REGISTRY
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn_worker import UvicornWorker

from mpesa_gateway.api.app import create_app
from mpesa_gateway.config import Config
from mpesa_gateway.log import configure_logging, get_logger
from mpesa_gateway.metrics_server import bind_metrics_port, serve_metrics
from mpesa_gateway.pools import PoolExporter
from mpesa_gateway.report import report
from mpesa_gateway.services import open_services
from mpesa_gateway.tasks import Bell, WorkQueue

LOGGER = get_logger(__name__)

# A client gets this long for its request line and headers.
HEADER_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 15
# After SIGTERM /readyz says 503 and requests are still served, until load balancers have noticed.
DRAIN_S = 2.0
# Longer than a push may take; Kubernetes' own period is 45 s in the chart.
GRACEFUL_TIMEOUT_S = 30
MAX_CONNECTIONS = 4096
MAX_HEADER_BYTES = 32 * 1024
# Of a chunked body, what is no data: sizes, extensions, trailer. The smallest chunk, of one byte,
# has five bytes of it, so each byte of data allows for some.
MAX_FRAMING_BYTES = 32 * 1024
FRAMING_PER_BYTE = 8
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._framing_bytes = 0
        self._data_bytes = 0
        self._latest: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection owes its first head."""
        super().connection_made(transport)
        # asyncio does it only for sockets that were made with IPPROTO_TCP. Without it, the body
        # of a kept-alive connection's answer waits for the peer's delayed ACK, 40 ms.
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives before a head is complete, and what is no data behind it."""
        was_in_head = self._in_head
        if was_in_head:
            self._head_bytes += len(data)
            self._arm()
        self._data_bytes = 0
        super().data_received(data)
        if not was_in_head and not self._in_head:
            self._count_framing(len(data))
        if self._in_head and self._head_bytes > self.max_header_bytes:
            self._refuse_head()

    def on_body(self, body: bytes) -> None:
        """Data of a body, without its framing. From its first byte on the reader has a deadline."""
        self._data_bytes += len(body)
        super().on_body(body)
        if not self.cycle.response_complete:
            self._disarm()

    def _count_framing(self, received: int) -> None:
        framing = received - self._data_bytes
        allowed = FRAMING_PER_BYTE * self._data_bytes
        # Never below zero: much data would earn the right to a long trailer.
        self._framing_bytes = max(0, self._framing_bytes + framing - allowed)
        if self._framing_bytes > self.max_framing_bytes:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """The head is there. Raises ValueError, which ends the parser, when it is too long."""
        self._disarm()
        # Counted again, because a long head may have come in one piece.
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.max_header_bytes:
            self._refuse_head()
            raise ValueError("the head is too long")
        self._in_head, self._framing_bytes = False, 0
        super().on_headers_complete()
        self._latest = self.cycle
        if STOPPING.is_set:
            # The answer says so: a request on a connection that closes under it would be lost.
            self.cycle.keep_alive = False
        if not self.pipeline:
            self._arm()

    def on_message_complete(self) -> None:
        """The next head may take its time to begin (keep-alive), not to end."""
        super().on_message_complete()
        self._disarm()
        self._in_head, self._head_bytes = True, 0

    def on_response_complete(self) -> None:
        """Answered; what is still to come of the body is thrown away, but not for ever.

        Or the next request of the pipeline begins, and its body has its time from now on.
        """
        super().on_response_complete()
        if not self._in_head:
            self._arm()

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
        else:
            self._end_with(BODY_TOO_SLOW)


class Stopping:
    """Whether SIGTERM has come. One per process."""

    def __init__(self) -> None:
        self.is_set = False

    def __call__(self) -> bool:
        """Whether it has come."""
        return self.is_set


STOPPING = Stopping()


class DrainingServer(uvicorn.Server):
    """Goes on serving for a moment after SIGTERM, with /readyz at 503."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first SIGTERM, stop on anything else."""
        if sig == signal.SIGTERM and not STOPPING.is_set:
            STOPPING.is_set = True
            LOGGER.info("draining", seconds=DRAIN_S)
            loop = asyncio.get_event_loop()
            loop.call_soon_threadsafe(loop.call_later, DRAIN_S, super().handle_exit, sig, frame)
            return
        super().handle_exit(sig, frame)


class Worker(UvicornWorker):  # type: ignore[misc]
    """gunicorn's worker: uvicorn with our protocol and our way to stop."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class's form
        "loop": "auto",
        "http": BoundedProtocol,
        "ws": "none",
        "lifespan": "on",
        "interface": "asgi3",
        "proxy_headers": False,
        "server_header": False,
        "date_header": True,
        "access_log": False,
        "limit_concurrency": MAX_CONNECTIONS,
        "timeout_graceful_shutdown": GRACEFUL_TIMEOUT_S - 5,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("uvicorn.error", "uvicorn.access"):
            # The base class ties them to gunicorn's files; the root logger is ours.
            logging.getLogger(name).handlers = []
            logging.getLogger(name).propagate = True

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class ApiApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by us alone: no command line, no file, no environment."""

    def __init__(self, config: Config, metrics_socket: socket.socket | None) -> None:
        self._config = config
        self._metrics_socket = metrics_socket
        super().__init__()

    def load_config(self) -> None:
        """Settings that differ from gunicorn's own."""
        settings = {
            "bind": f"{self._config.server_host}:{self._config.server_port}",
            "workers": 1,
            "worker_class": Worker,
            "keepalive": KEEP_ALIVE_S,
            "timeout": 60,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "backlog": 2048,
            "forwarded_allow_ips": "",
            "logger_class": _GunicornLog,
            "proc_name": "mpesa-gateway api",
            # Since 25.1 gunicorn opens a control socket unless told not to.
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> App[Request, Response]:
        """In the worker process: open what it works with, and build the application."""
        config = self._config
        configure_logging(config.log_format, config.log_level)
        _allow_many_files()
        opened = ExitStack()
        services = opened.enter_context(open_services(config, role="api"))
        bell = Bell(WorkQueue(config.redis_url))
        bell.start()
        opened.callback(bell.stop)
        REGISTRY.register(PoolExporter(services.pool, services.reserved_pool))
        if self._metrics_socket is not None:
            serve_metrics(self._metrics_socket, lambda: True, lambda: report(services.merchants))
        return create_app(services, ring=bell.ring, is_stopping=STOPPING, on_shutdown=opened.close)


class _GunicornLog:
    """gunicorn's logger interface on top of ours."""

    def __init__(self, _cfg: Any) -> None:
        self.error_log = self.access_log = logging.getLogger("gunicorn")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.error_log, name)

    def access(self, *_: Any) -> None:
        """The application writes these lines itself."""

    def reopen_files(self) -> None:
        """There are none."""

    def close_on_exec(self) -> None:
        """There is nothing to close."""


def _allow_many_files() -> None:
    """A connection is a file; a soft limit of 1024 would be the lowest limit of all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run_api(config: Config) -> None:
    """Serve until SIGTERM. Raises ConfigError when the metrics port is in use."""
    metrics_socket = bind_metrics_port(config.server_host, config.metrics_port)
    ApiApplication(config, metrics_socket).run()

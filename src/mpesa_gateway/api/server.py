"""`mpesa-gateway api`: gunicorn as the process manager, uvicorn as its worker.

One worker process per pod; replicas scale it (docs/decisions/0001). The limits that the frameworks
leave open are set here and in `protocol.py`: draining on SIGTERM, open files.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
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
from uvicorn_worker import UvicornWorker

from mpesa_gateway.api.app import create_app
from mpesa_gateway.api.connections import MAX_CONNECTIONS
from mpesa_gateway.api.life import Life
from mpesa_gateway.api.protocol import KEEP_ALIVE_S, STOPPING, BoundedProtocol, is_readable
from mpesa_gateway.config import Config
from mpesa_gateway.config.ports import bind_port
from mpesa_gateway.exporters.http_server import API_METRICS_PORT, bind_metrics_port, serve_metrics
from mpesa_gateway.exporters.merchants import report
from mpesa_gateway.exporters.pools import PoolExporter
from mpesa_gateway.services import open_services
from mpesa_gateway.telemetry.log import configure_logging, get_logger
from mpesa_gateway.work_queue import Notifier, WorkQueue

LOGGER = get_logger(__name__)

# After SIGTERM /readyz says 503 and requests are still served, until load balancers have noticed.
DRAIN_S = 2.0
# For a second at most, new connections are taken in after that.
ACCEPT_ROUNDS = 100
ACCEPT_ROUND_S = 0.01
# Longer than a push may take; Kubernetes' own period is 45 s in the chart.
GRACEFUL_TIMEOUT_S = 30
# Connections that the kernel has accepted for us.
BACKLOG = 2048
# prctl's number for "send me this signal when my parent ends" (linux/prctl.h).
PR_SET_PDEATHSIG = 1


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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, once those are taken in whom the kernel has connected: closing resets them."""
        for _ in range(ACCEPT_ROUNDS):
            if not any(map(is_readable, sockets or ())):
                break
            await asyncio.sleep(ACCEPT_ROUND_S)
        await super().shutdown(sockets)


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
        # Above our own limit (`connections.py`), so that who was admitted is never refused.
        "limit_concurrency": 2 * MAX_CONNECTIONS,
        "timeout_graceful_shutdown": GRACEFUL_TIMEOUT_S - 5,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("uvicorn.error", "uvicorn.access"):
            # The base class ties them to gunicorn's files; the root logger is ours.
            logging.getLogger(name).handlers = []
            logging.getLogger(name).propagate = True

    def init_process(self) -> None:
        """Begin to serve, for as long as there is a gunicorn to start who comes next."""
        _end_with(self.ppid)
        super().init_process()

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class ApiApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by us alone: no command line, no file, no environment."""

    def __init__(
        self, config: Config, listener: socket.socket, metrics_socket: socket.socket | None
    ) -> None:
        self._config = config
        self._listener = listener
        self._metrics_socket = metrics_socket
        super().__init__()

    def load_config(self) -> None:
        """Settings that differ from gunicorn's own."""
        settings = {
            # Bound already: a port in use is a sentence of ours. gunicorn owns the number now.
            "bind": f"fd://{self._listener.detach()}",
            "workers": 1,
            "worker_class": Worker,
            "keepalive": KEEP_ALIVE_S,
            "timeout": 60,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "backlog": BACKLOG,
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
        notifier = Notifier(WorkQueue(config.redis_url))
        notifier.start()
        opened.callback(notifier.stop)
        services.push_leases.start()
        opened.callback(services.push_leases.stop)
        services.watch.start()
        opened.callback(services.watch.stop)
        services.held_outcomes.start(notifier.notify)
        opened.callback(services.held_outcomes.stop)
        services.recovery.start()
        opened.callback(services.recovery.stop)
        REGISTRY.register(PoolExporter(services.pool, services.reserved_pool))
        life = Life()
        if self._metrics_socket is not None:
            serve_metrics(
                self._metrics_socket,
                lambda: life.is_live() and not services.watch.is_stuck(),
                lambda: report(services.merchants),
            )
        app = create_app(
            services,
            notify=notifier.notify,
            is_stopping=STOPPING,
            life=life,
            on_shutdown=opened.close,
        )
        # What lives as long as the process is not looked through again and again; requests leave
        # few cycles, so that rounds can be rare.
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        return app


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


def _end_with(parent: int) -> None:
    """SIGTERM to this process once its parent is gone, by `kill -9` too: it holds the port.

    In a container the kernel ends both together; elsewhere nothing else would.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # Gone before it was said.
        os.kill(os.getpid(), signal.SIGTERM)


def _allow_many_files() -> None:
    """A connection is a file; a soft limit of 1024 would be the lowest limit of all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run_api(config: Config) -> None:
    """Serve until SIGTERM. Raises ConfigError when a port is in use."""
    listener = bind_port("SERVER_PORT", config.server_host, config.server_port, backlog=BACKLOG)
    metrics_port = API_METRICS_PORT if config.metrics_port is None else config.metrics_port
    metrics_socket = bind_metrics_port(config.server_host, metrics_port)
    # What is there before the fork stays shared: the collector need not look at it, again and again
    # and in two processes.
    gc.collect()
    gc.freeze()
    ApiApplication(config, listener, metrics_socket).run()

"""`/metrics`, `/livez` and `/merchants` of a process, on a port of their own.

One event loop in one thread, and two threads that render: a client that is slow, or many of them,
costs a bounded number of connections and no thread, and a probe is answered beside them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prometheus_client import make_wsgi_app

from mpesa_gateway.config.ports import bind_port
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

API_METRICS_PORT = 9090
WORKER_METRICS_PORT = 9091
# From the connection to the answer's last byte.
DEADLINE_S = 10.0
# Prometheus, a probe and the operator need three. Of more, the one that came longest ago gives way.
MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 8 * 1024
RENDER_THREADS = 2
BACKLOG = 128
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
_REASONS |= {500: "Internal Server Error", 503: "Service Unavailable"}


def bind_metrics_port(host: str, port: int) -> socket.socket | None:
    """The listening socket, None when metrics are off. Raises ConfigError when it is in use."""
    return bind_port("METRICS_PORT", host, port, backlog=BACKLOG) if port else None


@dataclass(frozen=True)
class _Request:
    """The first line and the two headers that matter."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (_TEXT,)


class _Server:
    def __init__(self, is_live: Callable[[], bool], report: Callable[[], dict[str, Any]]) -> None:
        self._is_live = is_live
        self._report = report
        self._metrics = make_wsgi_app()
        self._threads = ThreadPoolExecutor(RENDER_THREADS, thread_name_prefix="metrics-render")
        # In the order in which they came.
        self._connections: dict[asyncio.Task[None], None] = {}

    async def serve(self, sock: socket.socket) -> None:
        """For as long as the process lives."""
        server = await asyncio.start_server(self._take, sock=sock, limit=MAX_HEAD_BYTES)
        await server.serve_forever()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = None
        if len(self._connections) > MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            # At once: others may come before it has ended.
            del self._connections[oldest]
            oldest.cancel()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._converse(reader, writer)
        except (TimeoutError, OSError, EOFError, asyncio.CancelledError):
            # Too slow, gone, or one too many.
            pass
        except Exception:
            LOGGER.exception("metrics request failed")
        finally:
            self._connections.pop(task, None)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, answer = None, _Answer(400, b"bad request\n")
        with suppress(asyncio.LimitOverrunError, ValueError):
            request = _parse(await reader.readuntil(b"\r\n\r\n"))
        if request is not None:
            answer = await self._answer(request)
        head = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in answer.headers]
        head.append(f"Content-Length: {len(answer.body)}")
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        if request is None or request.method != "HEAD":
            writer.write(answer.body)
        writer.close()
        await writer.wait_closed()

    async def _answer(self, request: _Request) -> _Answer:
        if request.method not in ("GET", "HEAD"):
            return _Answer(405, b"GET or HEAD\n", (_TEXT, ("Allow", "GET, HEAD")))
        if request.path == "/livez":
            live = self._is_live()
            return _Answer(200 if live else 503, b"ok\n" if live else b"stuck\n")
        calls = {"/metrics": self._render, "/merchants": self._merchants}
        call = calls.get(request.path)
        if call is None:
            return _Answer(404, b"/metrics, /livez or /merchants\n")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, call, request)

    def _merchants(self, _request: _Request) -> _Answer:
        body = json.dumps(self._report()).encode()
        return _Answer(200, body, (("Content-Type", "application/json"),))

    def _render(self, request: _Request) -> _Answer:
        """As Prometheus asks for it: its library chooses the format and the compression."""
        chosen: list[tuple[str, str]] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "HTTP_ACCEPT": request.headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
        }
        body = b"".join(self._metrics(environ, lambda _status, headers: chosen.extend(headers)))
        return _Answer(200, body, tuple(chosen))


def _parse(head: bytes) -> _Request:
    """Raises ValueError."""
    line, *fields = head.decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    path, _, query = target.partition("?")
    pairs = (field.partition(":") for field in fields if field)
    return _Request(
        method, path, query, {name.strip().lower(): value.strip() for name, _, value in pairs}
    )


def serve_metrics(
    sock: socket.socket, is_live: Callable[[], bool], report: Callable[[], dict[str, Any]]
) -> None:
    """Serve in the background, for as long as the process lives. `report` is of its merchants."""

    def run() -> None:
        loop = asyncio.SelectorEventLoop()
        loop.set_exception_handler(_log)
        loop.run_until_complete(_Server(is_live, report).serve(sock))

    threading.Thread(target=run, name="metrics", daemon=True).start()


def _log(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    LOGGER.error("metrics server", problem=context["message"], exc_info=context.get("exception"))

"""Runs the simulator: in the foreground, inside an event loop, or in a thread of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from daraja_simulator.app import SIMULATOR, create_app
from daraja_simulator.ledger import Selection
from daraja_simulator.settings import Settings
from daraja_simulator.simulator import Simulator

# What is still being answered when the simulator stops is cut off after this time.
SHUTDOWN_TIMEOUT_S = 0.5
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 30.0
BACKLOG = 1024
# Younger collections between two full ones. A full one walks every record of the ledger, which
# stops everything for a quarter of a second at 30,000 payments, and finds next to nothing.
FULL_COLLECTION_THRESHOLD = 10_000
_POLL_S = 0.005

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  nothing is bound here

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Running:
    """A simulator that answers at `url`, whatever port was asked for."""

    url: str
    simulator: Simulator


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """A simulator in this event loop. Raises OSError when it cannot listen."""
    app = create_app(settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
        yield Running(_url(settings.host, runner.addresses[0][1]), app[SIMULATOR])
    finally:
        await runner.cleanup()


def _url(host: str, port: int) -> str:
    host = _ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Only in the main thread. Raises OSError."""
    thresholds = gc.get_threshold()
    gc.set_threshold(*thresholds[:2], FULL_COLLECTION_THRESHOLD)
    try:
        asyncio.run(_serve(settings))
    finally:
        gc.set_threshold(*thresholds)


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings) as started:
        logger.info("The simulator listens on %s", started.url)
        await stop.wait()
        logger.info("The simulator stops")


class RunningSimulator:
    """A simulator in a thread with its own event loop, for code that is not async.

    Takes a free port unless `port` says another, whatever `settings.port` is. A simulator that
    was stopped can be started again; it has forgotten everything, and has another port.
    """

    def __init__(self, settings: Settings | None = None, *, port: int = 0) -> None:
        self._settings = dataclasses.replace(settings or Settings(), port=port)
        self._thread: threading.Thread | None = None
        self._started: Future[Running] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return self._running.url

    @property
    def _running(self) -> Running:
        return self._started.result(timeout=START_TIMEOUT_S)

    def start(self) -> None:
        """Return when it listens. Raises OSError when it cannot."""
        assert self._thread is None, "it runs already"  # noqa: S101  a promise of the caller
        self._started = Future()
        self._thread = threading.Thread(target=self._run, name="daraja-simulator", daemon=True)
        self._thread.start()
        try:
            self._started.result(timeout=START_TIMEOUT_S)
        except BaseException:
            self._thread.join(STOP_TIMEOUT_S)
            self._thread = None
            raise

    def stop(self) -> None:
        """Return when it has ended. Callbacks that are awaited never come. Safe to repeat."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_TIMEOUT_S)
        self._thread = None

    def ledger(
        self, *, phone: str | None = None, callback_url_contains: str | None = None, since: int = 0
    ) -> dict[str, list[dict[str, Any]]]:
        """The lists of GET /ledger: pushes, debits, callbacks, tokens, queries."""
        selection = Selection(phone, callback_url_contains, since)
        return self._call(lambda simulator: _listed(simulator, selection))

    def change(self, **changes: object) -> None:
        """Change settings, as PATCH /settings does. Raises SettingsError."""
        self._call(lambda simulator: simulator.change(changes))

    def wait_until_idle(self, timeout_s: float = 10.0) -> None:
        """Return when no payment waits for its customer or its callback. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while self._call(lambda simulator: simulator.payments_under_way):
            if time.monotonic() > deadline:
                raise TimeoutError(f"payments are under way after {timeout_s} s")
            time.sleep(_POLL_S)

    def _call(self, function: Callable[[Simulator], T]) -> T:
        """The function's result, called in the simulator's own thread."""

        async def call() -> T:
            return function(self._running.simulator)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(CALL_TIMEOUT_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with running(self._settings) as started:
            self._started.set_result(started)
            await self._stop.wait()


def _listed(simulator: Simulator, selection: Selection) -> dict[str, list[dict[str, Any]]]:
    selected = simulator.ledger.select(selection)
    return {kind: [entry.as_json() for entry in entries] for kind, entries in selected.items()}

"""The synchronous core behind the event loop: bounded thread pools, never an endless queue."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mpesa_gateway.errors import UnavailableError

Result = TypeVar("Result")


class Threads:
    """Runs blocking calls in some threads. At most `waiting` more may wait, others are refused.

    A call that has begun runs to its end although its request was cancelled: a push must never be
    cut off between "sent" and "saved".
    """

    def __init__(self, threads: int, name: str, *, waiting: int = 0) -> None:
        self._most = threads + waiting
        self._running = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, call: Callable[[], Result]) -> Result:
        """The call's result. Raises UnavailableError when every thread is busy."""
        if self._running >= self._most:
            raise UnavailableError("too many requests are being served")
        self._running += 1
        # With what is known of the request, for its log lines and its trace.
        context = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(self._executor, context.run, call)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Result]) -> None:
        self._running -= 1
        if not future.cancelled():
            # Read, so that asyncio does not complain when nobody waits any more.
            future.exception()

    def close(self) -> None:
        """Wait for what runs."""
        self._executor.shutdown(wait=True)

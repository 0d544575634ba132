"""The synchronous core behind the event loop: bounded thread pools, shared by merchant."""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from mpesa_gateway.domain.shares import Shares, Tenancy
from mpesa_gateway.errors import UnavailableError

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Waiting:
    """A call in the queue. `started` gets the future of its thread."""

    call: Callable[[], Any]
    started: asyncio.Future[asyncio.Future[Any]]


class Threads:
    """Runs blocking calls in some threads. At most `waiting` more may wait, others are refused.

    Threads and places in the queue are shared by merchant (domain/shares.py), and the queue is
    served by merchant in turn, so nobody's calls keep another's out. All calls belong to the event
    loop's thread. A call that has begun runs to its end although its request was cancelled: a push
    must never be cut off between "sent" and "saved".
    """

    def __init__(
        self,
        threads: int,
        name: str,
        *,
        waiting: int = 0,
        tenancy: Callable[[], Tenancy] = lambda: Tenancy.ONE_MERCHANT,
    ) -> None:
        """`tenancy`: who is served, so that nothing is left for a merchant that does not exist."""
        self._tenancy = tenancy
        self._running = Shares(threads)
        self._places = Shares(waiting)
        # By merchant, in the order of their turns.
        self._queue: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, merchant: str, call: Callable[[], Result]) -> Result:
        """Return the call's result. Raises UnavailableError when the merchant's share is used up.

        What is nobody's in particular has a name of its own, such as an empty one.
        """
        # With what is known of the request, for its log lines and its trace.
        context = contextvars.copy_context()
        started = self._start(merchant, lambda: context.run(call))
        return await asyncio.shield(await started)

    def _start(
        self, merchant: str, call: Callable[[], Result]
    ) -> asyncio.Future[asyncio.Future[Result]]:
        tenancy = self._tenancy()
        waiting = _Waiting(call, asyncio.get_running_loop().create_future())
        if merchant not in self._queue and self._running.take(merchant, tenancy):
            self._submit(merchant, waiting)
        elif self._places.take(merchant, tenancy):
            self._queue.setdefault(merchant, deque()).append(waiting)
        else:
            raise UnavailableError("too many requests are being served")
        return waiting.started

    def _submit(self, merchant: str, waiting: _Waiting) -> None:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, waiting.call)
        future.add_done_callback(lambda done: self._end(merchant, done))
        waiting.started.set_result(future)

    def _end(self, merchant: str, future: asyncio.Future[Any]) -> None:
        self._running.give_back(merchant)
        if not future.cancelled():
            # Read, so that asyncio does not complain when nobody waits any more.
            future.exception()
        while self._start_next():
            pass

    def _start_next(self) -> bool:
        """Start the next call of the first merchant that has a thread left."""
        tenancy = self._tenancy()
        eligible = (it for it in self._queue if self._running.has_room(it, tenancy))
        merchant = next(eligible, None)
        if merchant is None:
            return False
        queue = self._queue[merchant]
        waiting = queue.popleft()
        self._places.give_back(merchant)
        self._queue.move_to_end(merchant)
        if not queue:
            del self._queue[merchant]
        # Its client may have gone meanwhile; then nothing has begun and nothing has to end.
        if not waiting.started.cancelled():
            self._running.take(merchant, tenancy)
            self._submit(merchant, waiting)
        return True

    def close(self) -> None:
        """Wait for what runs."""
        self._executor.shutdown(wait=True)

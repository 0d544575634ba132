"""Name look-ups in threads of their own, shared by namespace and merchant.

A look-up that hangs cannot be cancelled: it holds its thread until the resolver gives up, with
glibc's defaults tens of seconds, and therefore its merchant's share of the threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

from mpesa_gateway.clients.caller import current_merchant
from mpesa_gateway.domain.merchant import Address
from mpesa_gateway.domain.shares import Shares

# One merchant gets half of them. They cost nothing while they are not needed.
LOOKUP_THREADS = 32

Resolve = Callable[[str, int], list[Address]]


class Lookups:
    """Threads for look-ups. Daraja's and the webhooks' have nothing in common."""

    def __init__(self, name: str, threads: int = LOOKUP_THREADS) -> None:
        self._shares = Shares(threads)
        self._changed = threading.Condition()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"resolve-{name}")

    def find(self, resolve: Resolve, host: str, port: int, *, timeout_s: float) -> list[Address]:
        """Return every address of the host. Raises OSError, TimeoutError."""
        merchant, give_up = current_merchant(), time.monotonic() + timeout_s
        with self._changed:
            if not self._changed.wait_for(lambda: self._shares.take(merchant), timeout_s):
                raise TimeoutError(
                    "the name look-up took too long: others of the merchant or its namespace hang"
                )
        # There is a thread for each share, so it starts at once.
        future = self._executor.submit(self._run, resolve, host, port, merchant)
        try:
            return future.result(timeout=max(give_up - time.monotonic(), 0))
        except FutureTimeoutError as error:
            raise TimeoutError("the name look-up took too long") from error

    def _run(self, resolve: Resolve, host: str, port: int, merchant: str) -> list[Address]:
        try:
            return resolve(host, port)
        finally:
            with self._changed:
                self._shares.give_back(merchant)
                self._changed.notify_all()

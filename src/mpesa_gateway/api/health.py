"""GET /health, /livez and /readyz."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from falcon.asgi import Request, Response

from mpesa_gateway import metrics
from mpesa_gateway.api.inbox import Inbox
from mpesa_gateway.api.threads import Threads
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.merchants import MerchantDirectory
from mpesa_gateway.store.migrations import applied_version
from mpesa_gateway.store.pool import Pool

DATABASE_TIMEOUT_S = 1.0
# A Postgres that hangs holds the thread that asks it; the probe is answered all the same.
ANSWER_TIMEOUT_S = 1.5


class HealthResource:
    """GET /health: whether the database answers."""

    def __init__(self, pool: Pool, threads: Threads) -> None:
        self._pool = pool
        self._threads = threads

    async def on_get(self, _req: Request, resp: Response) -> None:
        """200 or 503."""
        version = await ask_version(self._pool, self._threads)
        up = version is not None
        resp.status = 200 if up else 503
        resp.media = {"status": "ok" if up else "unavailable", "database": "up" if up else "down"}


class LiveResource:
    """GET /livez: whether this process should go on living. Asks nobody else."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def on_get(self, _req: Request, resp: Response) -> None:
        """200, or 503 when the inbox's thread is dead."""
        alive = self._inbox.is_alive()
        resp.status = 200 if alive else 503
        resp.media = {"status": "ok" if alive else "dead"}


class ReadyResource:
    """GET /readyz: whether requests should be sent here."""

    def __init__(
        self,
        pool: Pool,
        threads: Threads,
        merchants: MerchantDirectory,
        *,
        schema_version: int,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._threads = threads
        self._merchants = merchants
        self._schema_version = schema_version
        self._is_stopping = is_stopping

    async def on_get(self, _req: Request, resp: Response) -> None:
        """200, or 503 with what is missing."""
        version = await ask_version(self._pool, self._threads)
        checks = {
            "database": version is not None,
            "schema": version is not None and version >= self._schema_version,
            "merchants": self._merchants.loaded,
            "running": not self._is_stopping(),
        }
        ready = all(checks.values())
        resp.status = 200 if ready else 503
        resp.media = {"status": "ready" if ready else "not ready", "checks": checks}


async def ask_version(pool: Pool, threads: Threads) -> int | None:
    """The schema's version, None when Postgres does not answer in time."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await threads.run(lambda: database_version(pool))
    except (TimeoutError, UnavailableError):
        return None


def database_version(pool: Pool) -> int | None:
    """The schema's version, None when Postgres does not answer."""
    try:
        with pool.connection("health.version", DATABASE_TIMEOUT_S) as conn:
            version = applied_version(conn)
    except UnavailableError:
        return None
    metrics.schema_version.set(version)
    return version

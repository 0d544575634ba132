"""GET /health, /livez and /readyz."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from falcon.asgi import Request, Response

from mpesa_gateway.api.callbacks.inbox import Inbox
from mpesa_gateway.api.threads import Threads
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.merchants.directory import MerchantDirectory
from mpesa_gateway.store.applied import applied_version
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry import metrics

DATABASE_TIMEOUT_S = 1.0
# A Postgres that hangs holds the thread that asks it; the probe is answered all the same.
ANSWER_TIMEOUT_S = 1.5

# Probes belong to no merchant.
NOBODY = ""


class HealthResource:
    """GET /health: whether the database answers, takes writes, and has the schema we need."""

    def __init__(
        self,
        pool: Pool,
        threads: Threads,
        *,
        schema_version: int,
        is_writable: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._threads = threads
        self._schema_version = schema_version
        self._is_writable = is_writable

    async def on_get(self, _req: Request, resp: Response) -> None:
        """200, or 503 with what is wrong."""
        version = await ask_version(self._pool, self._threads)
        resp.media = {"status": "unavailable", "database": "up"}
        if version is None:
            resp.media["database"] = "down"
        elif version < self._schema_version:
            resp.media["schema"] = "behind"
        elif not self._is_writable():
            resp.media["database"] = "read-only"
        else:
            resp.media["status"] = "ok"
        resp.status = 200 if resp.media["status"] == "ok" else 503


class LiveResource:
    """GET /livez: whether this process should go on living. Asks nobody else."""

    def __init__(self, inbox: Inbox, is_stuck: Callable[[], bool]) -> None:
        self._inbox = inbox
        self._is_stuck = is_stuck

    async def on_get(self, _req: Request, resp: Response) -> None:
        """200, or 503 when the inbox's thread is dead or has not worked for a minute."""
        alive = self._inbox.is_alive() and not self._is_stuck()
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
            return await threads.run(NOBODY, lambda: database_version(pool))
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

"""Posts callbacks: each once, never again, whatever the answer is."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import aiohttp
from yarl import URL

from daraja_simulator import callback

# More postings than these wait their turn; the time-out runs from the turn.
MAX_POSTS_AT_ONCE = 256
MAX_ANSWER_BYTES = 16 * 1024
# Shorter than the keep-alive of usual servers: a connection that the server is about to close
# would lose a callback for a reason that has nothing to do with the test.
KEEPALIVE_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Posted:
    """How one posting ended: a status, or the error."""

    status: int | None
    error: str | None
    duration_ms: int


class Poster:
    """An HTTP client for callbacks, between `open` and `close`."""

    _session: aiohttp.ClientSession

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(MAX_POSTS_AT_ONCE)

    def open(self) -> None:
        """Make the client. Only inside the event loop."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": callback.CONTENT_TYPE},
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def post(
        self, url: str, body: bytes, short_code: str, *, timeout_s: float, verify_tls: bool
    ) -> Posted:
        """Post a callback once. Redirects are not followed, and proxies are not used."""
        async with self._turns:
            started = time.monotonic()
            status, error = None, None
            try:
                async with self._session.post(
                    URL(url, encoded=True),  # The exact path is preserved [M].
                    data=body,
                    headers={"Businessshortcode": short_code},  # Seen in the sandbox [M].
                    timeout=aiohttp.ClientTimeout(total=timeout_s),
                    allow_redirects=False,
                    ssl=verify_tls,
                ) as response:
                    status = response.status
                    await response.content.read(MAX_ANSWER_BYTES)
            except (aiohttp.ClientError, OSError, ValueError) as problem:
                error = f"{type(problem).__name__}: {problem}".rstrip(": ")
                logger.warning("A callback failed", extra={"error": type(problem).__name__})
            return Posted(status, error, round((time.monotonic() - started) * 1000))

"""Reads the body of an HTTP answer, up to a limit."""

from __future__ import annotations

import aiohttp

CHUNK = 64 * 1024


async def read_body(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises ValueError when it is longer than the limit."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > limit:
            raise ValueError(f"an answer of more than {limit} bytes")
    return bytes(body)

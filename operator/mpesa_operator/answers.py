"""Reads HTTP answers: the body up to a limit, never decoded."""

from __future__ import annotations

import aiohttp

CHUNK = 64 * 1024
# Of the status line and of each header.
MAX_LINE_BYTES = 8190
MAX_HEADERS = 128
IDENTITY = {"Accept-Encoding": "identity"}


def new_session() -> aiohttp.ClientSession:
    """A session for peers that are not trusted: no cookies, nothing is decoded."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers=IDENTITY,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        max_headers=MAX_HEADERS,
    )


async def read_body(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises ValueError when it is longer than the limit, or encoded."""
    if answer.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise ValueError("an answer in an encoding that nobody asked for")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > limit:
            raise ValueError(f"an answer of more than {limit} bytes")
    return bytes(body)

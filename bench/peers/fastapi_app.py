"""FastAPI and asyncpg, a commit per row: as a first version is usually written.

Run as `python -m bench.peers.fastapi_app PORT DATABASE_URL`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI, Request

POOL_SIZE = 16
INSERT = (
    "INSERT INTO peer_callbacks (transaction_id, by_token, body, body_sha256, source, received_at,"
    " last_received_at, next_attempt_at) VALUES ($1, true, $2, $3, '127.0.0.1', now(), now(),"
    " now()) ON CONFLICT (transaction_id, body_sha256) WHERE by_token"
    " DO UPDATE SET copies = peer_callbacks.copies + 1"
)


def create_app(database_url: str) -> FastAPI:
    """The application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(
            database_url, min_size=POOL_SIZE, max_size=POOL_SIZE
        ) as app.state.pool:
            yield

    app = FastAPI(lifespan=lifespan)

    async def keep(transaction: int, request: Request) -> dict[str, object]:
        body = await request.body()
        json.loads(body)
        await app.state.pool.execute(INSERT, transaction, body, hashlib.sha256(body).digest())
        return {"ResultCode": 0, "ResultDesc": "Accepted"}

    app.add_api_route("/callback/{transaction}", keep, methods=["POST"])
    return app


if __name__ == "__main__":
    port, url = sys.argv[1:]
    uvicorn.run(create_app(url), host="127.0.0.1", port=int(port), access_log=False)

"""FastAPI, asyncpg and aiohttp, a whole payment with a commit per step: as the Go peer does it.

Run as `python -m bench.peers.fastapi_payments PORT DATABASE_URL SAFARICOM_URL`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

POOL_SIZE = 16
WEBHOOK_WORKERS = 32
TOKEN = "bench-access-token-0123456789"  # noqa: S105 - of the stand-in
INTENT = """
    INSERT INTO peer_payments (
        merchant, idempotency_key, phone, amount, webhook_url, push_state, status, created_at
    )
    VALUES ('default', $1, $2, $3, $4, 'INTENT', 'PENDING', now())
    ON CONFLICT (merchant, idempotency_key) DO NOTHING
    RETURNING id
"""
SENDING = "UPDATE peer_payments SET push_state = 'SENDING' WHERE id = $1 AND push_state = 'INTENT'"
ACCEPTED = """
    UPDATE peer_payments SET push_state = 'ACCEPTED', checkout_request_id = $2 WHERE id = $1
"""
STORE = "INSERT INTO peer_inbox (payment_id, body, received_at) VALUES ($1, $2, now()) RETURNING id"
APPLY = """
    WITH applied AS (
        UPDATE peer_inbox SET applied_at = now()
         WHERE id = $1 AND applied_at IS NULL
        RETURNING payment_id
    ), ended AS (
        UPDATE peer_payments p
           SET status = 'COMPLETED', receipt = $2, finished_at = now()
          FROM applied
         WHERE p.id = applied.payment_id AND p.status = 'PENDING'
        RETURNING p.id, p.webhook_url
    )
    INSERT INTO peer_deliveries (payment_id, url, state)
    SELECT id, webhook_url, 'PENDING' FROM ended
    RETURNING id, payment_id, url
"""
CLAIM = "UPDATE peer_deliveries SET attempts = attempts + 1 WHERE id = $1 AND state = 'PENDING'"
DELIVERED = "UPDATE peer_deliveries SET state = 'DELIVERED' WHERE id = $1"


class Initiate(BaseModel):
    """The body of POST /initiate."""

    amount: str
    phone: str
    webhook_url: str
    idempotency_key: str


class Service:
    """What one process has open."""

    def __init__(self, pool: Any, http: aiohttp.ClientSession, safaricom: str, own: str) -> None:
        self.pool = pool
        self.http = http
        self.safaricom = safaricom
        self.own = own
        self.jobs: asyncio.Queue[int] = asyncio.Queue()

    async def initiate(self, body: Initiate, response: Response) -> dict[str, object]:
        """Intent, SENDING, push, outcome: three commits."""
        payment = await self.pool.fetchval(
            INTENT, body.idempotency_key, body.phone, int(body.amount), body.webhook_url
        )
        await self.pool.execute(SENDING, payment)
        push = {
            "BusinessShortCode": 174379, "Password": "bench", "PartyB": 174379,
            "Timestamp": datetime.now(UTC).strftime("%Y%m%d%H%M%S"),
            "TransactionType": "CustomerPayBillOnline",
            "Amount": int(body.amount), "PartyA": int(body.phone), "PhoneNumber": int(body.phone),
            "CallBackURL": f"{self.own}/callback/{payment}",
            "AccountReference": "bench", "TransactionDesc": "bench",
        }  # fmt: skip
        url = f"{self.safaricom}/mpesa/stkpush/v1/processrequest"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.http.post(url, json=push, headers=headers) as answer:
            accepted = await answer.json()
        await self.pool.execute(ACCEPTED, payment, accepted["CheckoutRequestID"])
        response.status_code = 201
        return {"transaction_id": str(payment), "status": "PENDING"}

    async def callback(self, payment: int, request: Request) -> dict[str, object]:
        """Store it, then answer."""
        body = await request.body()
        json.loads(body)
        self.jobs.put_nowait(await self.pool.fetchval(STORE, payment, body))
        return {"ResultCode": 0, "ResultDesc": "Accepted"}

    async def work(self) -> None:
        """Apply and deliver, one after the other."""
        while True:
            await self._apply_and_tell(await self.jobs.get())

    async def _apply_and_tell(self, inbox: int) -> None:
        body = await self.pool.fetchval("SELECT body FROM peer_inbox WHERE id = $1", inbox)
        items = json.loads(body)["Body"]["stkCallback"]["CallbackMetadata"]["Item"]
        receipt = next(it["Value"] for it in items if it["Name"] == "MpesaReceiptNumber")
        delivery, payment, url = await self.pool.fetchrow(APPLY, inbox, receipt)
        await self.pool.execute(CLAIM, delivery)
        data = {"transaction_id": str(payment), "status": "COMPLETED", "receipt": receipt}
        content = json.dumps({"type": "transaction.completed", "data": data}).encode()
        headers = {"webhook-signature": hmac.new(b"bench", content, hashlib.sha256).hexdigest()}
        async with self.http.post(url, data=content, headers=headers) as answer:
            await answer.read()
        await self.pool.execute(DELIVERED, delivery)


def create_app(database_url: str, safaricom: str, own: str) -> FastAPI:
    """The application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            asyncpg.create_pool(database_url, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool,
            aiohttp.ClientSession(connector=connector) as http,
        ):
            service = Service(pool, http, safaricom, own)
            app.add_api_route("/initiate", service.initiate, methods=["POST"])
            app.add_api_route("/callback/{payment}", service.callback, methods=["POST"])
            workers = [asyncio.create_task(service.work()) for _ in range(WEBHOOK_WORKERS)]
            yield
            for worker in workers:
                worker.cancel()

    return FastAPI(lifespan=lifespan)


if __name__ == "__main__":
    listen, database, upstream = sys.argv[1:]
    uvicorn.run(
        create_app(database, upstream, f"http://127.0.0.1:{listen}"),
        host="127.0.0.1",
        port=int(listen),
        access_log=False,
    )

"""The endpoints of Daraja, over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import web

from daraja_simulator import replies
from daraja_simulator.ids import mask_phone
from daraja_simulator.ledger import TokenRecord
from daraja_simulator.replies import RefusedError, Reply
from daraja_simulator.simulator import PushVerdict, Simulator
from daraja_simulator.tokens import parse_basic

TOKEN_PATH = "/oauth/v1/generate"  # noqa: S105  a path
PUSH_PATH = "/mpesa/stkpush/v1/processrequest"
QUERY_PATH = "/mpesa/stkpushquery/v1/query"

logger = logging.getLogger(__name__)


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """The endpoints of Daraja that are simulated."""
    endpoints = DarajaEndpoints(simulator)
    return [
        web.get(TOKEN_PATH, endpoints.token, allow_head=False),
        web.post(PUSH_PATH, endpoints.push),
        web.post(QUERY_PATH, endpoints.query),
    ]


def as_response(reply: Reply) -> web.Response:
    """A reply as aiohttp sends it."""
    headers = {"Content-Type": reply.content_type}
    return web.Response(
        status=reply.status, body=reply.body.encode(errors="surrogateescape"), headers=headers
    )


class DarajaEndpoints:
    """OAuth, STK push and STK query."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def token(self, request: web.Request) -> web.Response:
        """GET /oauth/v1/generate: a token for an app."""
        simulator = self._simulator
        settings = simulator.settings
        try:
            key = parse_basic(request.headers.get("Authorization"), settings.credentials)
        except RefusedError as refused:
            return as_response(refused.reply)
        if request.query.get("grant_type") != "client_credentials":
            return as_response(replies.invalid_grant_type())
        expires_at = time.monotonic() + settings.token_lifetime
        token = simulator.tokens.issue(key, expires_at, invalidate=settings.token_invalidation)
        await simulator.ledger.record(TokenRecord(key))
        lifetime_s = int(settings.token_lifetime)
        return as_response(replies.token(token, lifetime_s, as_number=settings.expires_in_number))

    async def push(self, request: web.Request) -> web.Response:
        """POST /mpesa/stkpush/v1/processrequest: a prompt on a phone.

        A caller that hangs up changes nothing: the payment goes on.
        """
        simulator = self._simulator
        raw = await request.read()
        verdict = await simulator.receive_push(request.headers.get("Authorization"), raw)
        await asyncio.sleep(simulator.settings.push_delay)
        if verdict.payment is not None:
            await simulator.start(verdict.payment)
        _log(verdict)
        if verdict.reply is None:
            return _cut(request)
        return as_response(verdict.reply)

    async def query(self, request: web.Request) -> web.Response:
        """POST /mpesa/stkpushquery/v1/query: how a payment ended."""
        raw = await request.read()
        authorization = request.headers.get("Authorization")
        return as_response(await self._simulator.receive_query(authorization, raw))


def _cut(request: web.Request) -> web.Response:
    """Close the connection. The response is never seen: its connection is gone."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def _log(verdict: PushVerdict) -> None:
    if not logger.isEnabledFor(logging.INFO):
        return
    payment, outcome, reply = verdict.payment, verdict.outcome, verdict.reply
    extra = {
        "phone": mask_phone(payment.push.phone) if payment else None,
        "outcome": outcome.name if outcome else "refused",
        "answer_status": reply.status if reply else None,
    }
    logger.info("A push was answered", extra=extra)

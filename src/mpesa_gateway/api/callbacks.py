"""POST /callback and POST /callback/{token}: where Safaricom reports how a payment ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache

from falcon.asgi import Request, Response

from mpesa_gateway import metrics
from mpesa_gateway.api.allowlist import client_address
from mpesa_gateway.api.bodies import CALLBACK_LIMIT, BodyTooLargeError, read_body
from mpesa_gateway.api.errors import ForbiddenError
from mpesa_gateway.api.inbox import Inbox
from mpesa_gateway.domain.ids import CallbackToken, find_callback_token
from mpesa_gateway.domain.merchant import Address, Network, is_allowed
from mpesa_gateway.errors import NotFoundError, UnavailableError
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.tracing import follow

ACCEPTED = '{"ResultCode": 0, "ResultDesc": "Accepted"}'
# What is kept beside the body; enough to see who sent it and what it claimed to be.
KEPT_HEADERS = frozenset({b"content-type", b"user-agent", b"businessshortcode", b"x-forwarded-for"})
MAX_HEADER_LENGTH = 512
Headers = Iterable[tuple[bytes, bytes]]


class CallbackResource:
    """Answers 200 once the raw body is committed; a worker reads it later."""

    def __init__(
        self, inbox: Inbox, *, platform: tuple[Network, ...], trusted: tuple[Network, ...]
    ) -> None:
        self._inbox = inbox
        self._platform = platform
        self._trusted = trusted

    async def on_post(self, req: Request, resp: Response) -> None:
        """The plain path: the platform's allowlist, matched by CheckoutRequestID."""
        body = await self._read(req)
        address = self._sender(req)
        if not is_allowed(address, self._platform):
            raise rejected("not_allowed")
        await self._keep(req, resp, None, body, address)

    async def on_post_token(self, req: Request, resp: Response, token: str) -> None:
        """The path that names the push, so that its merchant's allowlist applies."""
        body = await self._read(req)
        parsed = find_callback_token(token)
        if parsed is None:
            raise rejected("unknown_token")
        await self._keep(req, resp, parsed, body, self._sender(req))

    def _sender(self, req: Request) -> Address:
        return sender(req.scope["headers"], req.scope.get("client"), self._trusted)

    async def _read(self, req: Request) -> bytes:
        try:
            return await read_body(req, CALLBACK_LIMIT)
        except BodyTooLargeError:
            metrics.callbacks_rejected_total.labels("too_large").inc()
            raise

    async def _keep(
        self,
        req: Request,
        resp: Response,
        token: CallbackToken | None,
        body: bytes,
        address: Address,
    ) -> None:
        started = time.monotonic()
        try:
            verdict = await self._inbox.put(
                token, body, kept_headers(req.scope["headers"]), address
            )
        except UnavailableError:
            metrics.callbacks_rejected_total.labels("unavailable").inc()
            raise
        if verdict is not Verdict.KEPT:
            raise rejected(verdict.value)
        if token is not None:
            follow(token.transaction, None)
        resp.text = ACCEPTED
        resp.content_type = "application/json"
        metrics.callback_ack_seconds.observe(time.monotonic() - started)


def sender(headers: Headers, peer: tuple[str, int] | None, trusted: tuple[Network, ...]) -> Address:
    """Where a request really comes from."""
    forwarded = tuple([value for name, value in headers if name == b"x-forwarded-for"])
    return _sender(peer[0] if peer else "", forwarded, trusted)


# Nearly all callbacks come from the same few, as do their headers. Few are remembered, because a
# head may have 32 KiB.
@lru_cache(maxsize=128)
def _sender(peer: str, forwarded: tuple[bytes, ...], trusted: tuple[Network, ...]) -> Address:
    return client_address(peer, [value.decode("latin-1") for value in forwarded], trusted)


def kept_headers(headers: Headers) -> dict[str, str]:
    """The headers of interest, bounded."""
    return _decoded(tuple([it for it in headers if it[0] in KEPT_HEADERS]))


@lru_cache(maxsize=128)
def _decoded(headers: tuple[tuple[bytes, bytes], ...]) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1")[:MAX_HEADER_LENGTH].replace("\x00", "")
        for name, value in headers
    }


def rejected(reason: str) -> NotFoundError | ForbiddenError:
    """The answer to a callback that is not taken, counted."""
    metrics.callbacks_rejected_total.labels(reason).inc()
    if reason == Verdict.UNKNOWN_TOKEN.value:
        return NotFoundError("there is nothing at this path")
    return ForbiddenError("this address may not call back")

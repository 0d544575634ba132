"""POST /callback and POST /callback/{token}: where Safaricom reports how a payment ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from falcon.asgi import Request, Response

from mpesa_gateway.api.allowlist import client_address
from mpesa_gateway.api.bodies import (
    CALLBACK_LIMIT,
    BodyTooLargeError,
    Judge,
    pass_over,
    read_body,
    refuse_too_large,
)
from mpesa_gateway.api.callbacks.inbox import Inbox
from mpesa_gateway.api.callbacks.known import KnownPushes
from mpesa_gateway.api.errors import ForbiddenError
from mpesa_gateway.api.guesses import Guesses
from mpesa_gateway.api.refusals import Refusals
from mpesa_gateway.domain.ids import CallbackToken, find_callback_token
from mpesa_gateway.domain.merchant import Address, Network, is_allowed
from mpesa_gateway.errors import NotFoundError, RateLimitedError, UnavailableError
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.tracing import follow

ACCEPTED = '{"ResultCode": 0, "ResultDesc": "Accepted"}'
# What is kept beside the body; enough to see who sent it and what it claimed to be.
KEPT_HEADERS = frozenset(
    {b"content-type", b"content-encoding", b"user-agent", b"businessshortcode", b"x-forwarded-for"}
)
MAX_HEADER_LENGTH = 512
Headers = Iterable[tuple[bytes, bytes]]
# Of those that brought a token. A good one that comes from elsewhere is probably Safaricom.
REASONS = {
    Verdict.UNKNOWN_TOKEN: "unknown_token",
    Verdict.NOT_ALLOWED: "not_allowed_good_token",
}


class CallbackResource:
    """Answers 200 once the raw body is committed; a worker reads it later."""

    def __init__(
        self,
        inbox: Inbox,
        known: KnownPushes,
        *,
        platform: tuple[Network, ...],
        trusted: tuple[Network, ...],
    ) -> None:
        self._inbox = inbox
        self._known = known
        self._guesses = Guesses(platform)
        self._platform = platform
        self._trusted = trusted
        self._refusals = Refusals()

    async def on_post(self, req: Request, resp: Response) -> None:
        """The plain path: the platform's allowlist, matched by CheckoutRequestID."""
        await self._refuse_too_large(req)
        address = self._sender(req)
        if not is_allowed(address, self._platform):
            headers = kept_headers(req.scope["headers"])
            self._refusals.warn(address, headers, has_good_token=False)
            await self._pass_over(req)
            raise rejected("not_allowed")
        self._check_guesses(lambda: self._guesses.check(address))
        body = await self._read(req)
        # Again, behind the look-up: others of this address may have been counted meanwhile.
        is_known = await self._names_a_push(body, req)
        count = self._guesses.check if is_known else self._guesses.count
        self._check_guesses(lambda: count(address))
        await self._keep(req, resp, None, body, address)

    async def on_post_token(self, req: Request, resp: Response, token: str) -> None:
        """The path that names the push, so that its merchant's allowlist applies."""
        await self._refuse_too_large(req)
        parsed = find_callback_token(token)
        if parsed is None:
            await self._pass_over(req)
            raise rejected("unknown_token")
        address = self._sender(req)
        headers = kept_headers(req.scope["headers"])
        body = await self._read(req, lambda: self._judge(parsed, address, headers))
        await self._keep(req, resp, parsed, body, address)

    async def _names_a_push(self, body: bytes, req: Request) -> bool:
        """What cannot be looked up counts as unknown; the inbox holds it while Postgres is away."""
        try:
            encoding = kept_headers(req.scope["headers"]).get("content-encoding", "")
            return await self._known.names_a_push(body, encoding)
        except UnavailableError:
            return False

    async def _judge(self, token: CallbackToken, address: Address, headers: dict[str, str]) -> None:
        """Before the rest of a large body is read; `keep` judges every body once more."""
        refusal = await self._known.find_refusal(token, address)
        if refusal is Verdict.NOT_ALLOWED:
            self._refusals.warn(address, headers, has_good_token=True)
        if refusal is not None:
            raise rejected(REASONS[refusal])

    def _check_guesses(self, check: Callable[[], None]) -> None:
        try:
            check()
        except RateLimitedError:
            metrics.callbacks_rejected_total.labels("guesses").inc()
            raise

    async def _refuse_too_large(self, req: Request) -> None:
        with _too_large_counted():
            await refuse_too_large(req, CALLBACK_LIMIT)

    async def _pass_over(self, req: Request) -> None:
        with _too_large_counted():
            await pass_over(req, CALLBACK_LIMIT)

    def _sender(self, req: Request) -> Address:
        return sender(req.scope["headers"], req.scope.get("client"), self._trusted)

    async def _read(self, req: Request, judge: Judge | None = None) -> bytes:
        with _too_large_counted():
            return await read_body(req, CALLBACK_LIMIT, judge)

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
        if not verdict.is_stored:
            raise rejected(REASONS[verdict])
        if token is not None:
            follow(token.transaction, None)
        resp.text = ACCEPTED
        resp.content_type = "application/json"
        metrics.callback_ack_seconds.observe(time.monotonic() - started)


@contextmanager
def _too_large_counted() -> Iterator[None]:
    try:
        yield
    except BodyTooLargeError:
        metrics.callbacks_rejected_total.labels("too_large").inc()
        raise


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

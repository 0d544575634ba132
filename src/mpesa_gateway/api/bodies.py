"""Reading request bodies: never more than a limit, never longer than a deadline, strict JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from falcon.asgi import Request

from mpesa_gateway.errors import GatewayError, InvalidInputError, UnavailableError

INITIATE_LIMIT = 64 * 1024
CALLBACK_LIMIT = 1024 * 1024
# A slow client gets this long for its whole body.
BODY_TIMEOUT_S = 10.0
# What is read and thrown away of a body that is too large, so that its sender sees the answer.
DISCARD_LIMIT = 8 * 1024 * 1024
DISCARD_TIMEOUT_S = 2.0
CHUNK = 16 * 1024
# So much is held of a callback before its token and address are judged; true ones have about 1 KiB.
UNJUDGED_LIMIT = 64 * 1024
# Of all bodies that are being read. Beyond, whoever lets us wait for more is answered 503; a body
# that comes in one piece holds nothing.
MAX_READING_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 16


class BodyTooLargeError(GatewayError):
    """The body is above the limit of its endpoint."""


class BodyTooSlowError(GatewayError):
    """The body did not arrive in time."""


class Reading:
    """The bytes of all bodies that are being read in this process, bounded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.bytes = 0

    def hold(self) -> Held:
        """Nothing yet; it grows with its body."""
        return Held(self)

    def change(self, by: int) -> None:
        """Raises UnavailableError when there is no room for more."""
        if by > 0 and self.bytes + by > self._most:
            raise UnavailableError("too many bodies are being read")
        self.bytes += by


class Held:
    """What one body holds while more of it is to come."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._bytes = 0

    def grow(self, to: int) -> None:
        """So many bytes have come. Raises UnavailableError when that is too much for all."""
        self._reading.change(to - self._bytes)
        self._bytes = to

    def release(self) -> None:
        """It is complete, or given up."""
        self._reading.change(-self._bytes)
        self._bytes = 0


READING = Reading(MAX_READING_BYTES)
Judge = Callable[[], Awaitable[None]]


async def read_body(req: Request, limit: int, judge: Judge | None = None) -> bytes:
    """The whole body. Raises BodyTooLargeError, BodyTooSlowError, UnavailableError.

    `judge` may refuse the request by raising: it is asked before more than UNJUDGED_LIMIT bytes are
    held.
    """
    await refuse_too_large(req, limit)
    held = READING.hold()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _collect(req, limit, judge, held)
    except TimeoutError as error:
        raise BodyTooSlowError(f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from error
    finally:
        held.release()
    if len(body) > limit:
        await _discard(req)
        raise BodyTooLargeError(f"the body is above {limit} bytes")
    return bytes(body)


async def refuse_too_large(req: Request, limit: int) -> None:
    """Raises BodyTooLargeError by what the head says."""
    if (req.content_length or 0) > limit:
        await _discard(req)
        raise BodyTooLargeError(f"the body is above {limit} bytes")


async def pass_over(req: Request, limit: int) -> None:
    """Hold nothing of a body that is refused. Raises BodyTooLargeError, whose turn comes first.

    What the head says was judged already; a body of unknown length is counted, for a short while.
    """
    if req.content_length is None and await _discard(req, limit + 1) > limit:
        await _discard(req)
        raise BodyTooLargeError(f"the body is above {limit} bytes")


async def _collect(req: Request, limit: int, judge: Judge | None, held: Held) -> bytearray:
    """At most a chunk above the limit. Only who lets others wait for more is counted."""
    body = bytearray()
    if judge is not None and (req.content_length or 0) > UNJUDGED_LIMIT:
        await judge()
        judge = None
    while len(body) <= limit and (chunk := await req.stream.read(CHUNK)):
        body += chunk
        if judge is not None and len(body) > UNJUDGED_LIMIT:
            await judge()
            judge = None
        if len(body) != req.content_length:
            held.grow(len(body))
    return body


async def _discard(req: Request, most: int = DISCARD_LIMIT) -> int:
    """Throw away what comes, and return how much that was."""
    found = 0
    try:
        async with asyncio.timeout(DISCARD_TIMEOUT_S):
            while found < most and (chunk := await req.stream.read(CHUNK)):
                found += len(chunk)
    except TimeoutError:
        pass
    return found


def parse_json_object(body: bytes, content_type: str | None) -> dict[str, Any]:
    """A JSON object of a caller. Raises InvalidInputError.

    Stricter than `json.loads`: UTF-8, no key twice (which of the two would be meant?), no NaN, no
    deep nesting. Numbers with a fraction come as Decimal.
    """
    media_type = (content_type or "").split(";", 1)[0].strip().lower()
    if media_type != "application/json":
        raise InvalidInputError.of("body", "the Content-Type must be application/json")
    try:
        parsed = json.loads(
            body.decode("utf-8"),
            parse_float=Decimal,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_keys,
        )
    except RecursionError as error:
        raise InvalidInputError.of("body", "is nested too deeply") from error
    except (ValueError, ArithmeticError) as error:
        # A number whose exponent no Decimal holds is an ArithmeticError.
        raise InvalidInputError.of("body", "is not valid JSON") from error
    if not isinstance(parsed, dict):
        raise InvalidInputError.of("body", "must be a JSON object")
    if _depth(parsed) > MAX_DEPTH:
        raise InvalidInputError.of("body", "is nested too deeply")
    return parsed


def _refuse_constant(constant: str) -> None:
    raise InvalidInputError.of("body", f"{constant} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise InvalidInputError.of("body", "a key occurs twice")
    return unique


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level and deepest <= MAX_DEPTH:
        deepest += 1
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return deepest

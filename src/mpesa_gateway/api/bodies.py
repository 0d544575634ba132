"""Reading request bodies: never more than a limit, never longer than a deadline, strict JSON."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

from falcon.asgi import Request

from mpesa_gateway.errors import GatewayError, InvalidInputError

INITIATE_LIMIT = 64 * 1024
CALLBACK_LIMIT = 1024 * 1024
# A slow client gets this long for its whole body.
BODY_TIMEOUT_S = 10.0
# What is read and thrown away of a body that is too large, so that its sender sees the answer.
DISCARD_LIMIT = 8 * 1024 * 1024
DISCARD_TIMEOUT_S = 2.0
CHUNK = 64 * 1024
MAX_DEPTH = 16


class BodyTooLargeError(GatewayError):
    """The body is above the limit of its endpoint."""


class BodyTooSlowError(GatewayError):
    """The body did not arrive in time."""


async def read_body(req: Request, limit: int) -> bytes:
    """The whole body. Raises BodyTooLargeError, BodyTooSlowError."""
    if (req.content_length or 0) > limit:
        await _discard(req)
        raise BodyTooLargeError(f"the body is above {limit} bytes")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body: bytes = await req.stream.read(limit + 1)
    except TimeoutError as error:
        raise BodyTooSlowError(f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from error
    if len(body) > limit:
        await _discard(req)
        raise BodyTooLargeError(f"the body is above {limit} bytes")
    return body


async def _discard(req: Request) -> None:
    left = DISCARD_LIMIT
    try:
        async with asyncio.timeout(DISCARD_TIMEOUT_S):
            while left > 0 and (chunk := await req.stream.read(CHUNK)):
                left -= len(chunk)
    except TimeoutError:
        return


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

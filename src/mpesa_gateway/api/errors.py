"""Errors as answers: each of ours, and falcon's own, becomes one problem document (RFC 9457)."""

from __future__ import annotations

import json
import math
from typing import Any

import falcon
from falcon.asgi import App, Request, Response

from mpesa_gateway.api.bodies import BodyTooLargeError, BodyTooSlowError
from mpesa_gateway.domain.problem_details import problem
from mpesa_gateway.errors import (
    GatewayError,
    InvalidInputError,
    KeyInFlightError,
    KeyReusedError,
    MerchantDrainingError,
    MerchantSuspendedError,
    NotFoundError,
    NothingToDeliverError,
    OrderOpenError,
    OrderPaidError,
    PromptOpenError,
    RateLimitedError,
    RecoveryError,
    RequestRefusedError,
    SchemaBehindError,
    UnavailableError,
    UnknownServerError,
)
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.telemetry.masking import mask

LOGGER = get_logger(__name__)
PROBLEM_JSON = "application/problem+json"
UNAVAILABLE_RETRY_S = 2
# An operator has to look first.
RECOVERY_RETRY_S = 30
FAILED = problem(
    "internal-error",
    500,
    "The gateway failed. Ask again with the same idempotency key: nothing happens twice.",
)


class UnauthorizedError(GatewayError):
    """No key, or none that is known."""


class ForbiddenError(GatewayError):
    """The address may not call back."""


# Error -> (status, problem slug).
STATUSES: dict[type[GatewayError], tuple[int, str]] = {
    InvalidInputError: (400, "invalid-input"),
    UnauthorizedError: (401, "unauthorized"),
    ForbiddenError: (403, "forbidden"),
    MerchantSuspendedError: (403, "merchant-suspended"),
    NotFoundError: (404, "not-found"),
    BodyTooSlowError: (408, "request-timeout"),
    KeyInFlightError: (409, "key-in-flight"),
    PromptOpenError: (409, "prompt-open"),
    OrderPaidError: (409, "order-paid"),
    OrderOpenError: (409, "order-open"),
    NothingToDeliverError: (409, "nothing-to-deliver"),
    MerchantDrainingError: (410, "merchant-removed"),
    BodyTooLargeError: (413, "body-too-large"),
    KeyReusedError: (422, "key-reused"),
    RateLimitedError: (429, "rate-limited"),
    UnavailableError: (503, "unavailable"),
    SchemaBehindError: (503, "unavailable"),
    UnknownServerError: (503, "unavailable"),
    RecoveryError: (503, "recovery"),
}
_FALCON = {
    400: "invalid-input",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
}


def add_error_handlers(app: App[Request, Response]) -> None:
    """Let no error out of the application in another shape."""
    app.add_error_handler(Exception, _on_exception)
    app.add_error_handler(falcon.HTTPError, _on_falcon_error)
    app.add_error_handler(GatewayError, _on_gateway_error)


def write_problem(resp: Response, document: dict[str, Any]) -> None:
    """Answer with a problem document; `retry_after` becomes a header too."""
    resp.status = document["status"]
    resp.content_type = PROBLEM_JSON
    resp.text = json.dumps(document)
    if "retry_after" in document:
        resp.set_header("Retry-After", str(document["retry_after"]))


async def _on_gateway_error(
    req: Request, resp: Response, error: GatewayError, _params: dict[str, Any]
) -> None:
    if isinstance(error, UnauthorizedError):
        resp.set_header("WWW-Authenticate", "Bearer")
    if isinstance(error, BodyTooLargeError | BodyTooSlowError):
        resp.set_header("Connection", "close")
    write_problem(resp, problem_of(error, is_read=req.method in ("GET", "HEAD")))


def problem_of(error: GatewayError, *, is_read: bool = False) -> dict[str, Any]:
    """The problem document that tells it; of a read, which creates nothing anyway."""
    status, slug = STATUSES[type(error)]
    extensions: dict[str, Any] = {}
    if isinstance(error, InvalidInputError):
        detail = (
            "Some parameters are not valid; `errors` names each."
            if is_read
            else "Some fields are not valid; nothing was created."
        )
        # The name of an unknown field is the caller's own word, and may be a phone by mistake.
        extensions["errors"] = [
            {"field": mask(it.field), "message": it.message} for it in error.problems
        ]
    else:
        detail = str(error)
    if isinstance(error, RequestRefusedError):
        extensions["retry_after"] = error.retry_after_s
    if isinstance(error, OrderPaidError | OrderOpenError) and error.transaction_id is not None:
        extensions["transaction_id"] = str(error.transaction_id)
    if isinstance(error, OrderPaidError):
        extensions["receipt"] = error.receipt
    if isinstance(error, UnavailableError):
        extensions["retry_after"] = UNAVAILABLE_RETRY_S
    if isinstance(error, RecoveryError):
        extensions["retry_after"] = RECOVERY_RETRY_S
    return problem(slug, status, detail, **extensions)


async def _on_falcon_error(
    req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, Any]
) -> None:
    status = math.floor(error.status_code)
    slug = _FALCON.get(status, "invalid-input" if status < 500 else "internal-error")
    for name, value in dict(error.headers or {}).items():
        resp.set_header(name, value)
    write_problem(resp, problem(slug, status, _in_words(req, error)))


def _in_words(req: Request, error: falcon.HTTPError) -> str:
    """What a caller should do about an error of falcon's."""
    if isinstance(error, falcon.HTTPNotFound):
        return "There is no such path. GET /docs shows every path, GET /openapi.json lists them."
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = dict(error.headers or {}).get("Allow", "")
        return f"{req.method} is not served on this path; it serves {allowed}."
    return error.description or error.title or "The request cannot be served."


async def _on_exception(
    req: Request, resp: Response, error: Exception, _params: dict[str, Any]
) -> None:
    LOGGER.error("request failed", route=req.uri_template, exc_info=error)
    write_problem(resp, FAILED)

"""The OpenAPI document: true, because a test holds it against the running API."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from mpesa_gateway import __version__
from mpesa_gateway.api.schemas import SCHEMAS
from mpesa_gateway.api.transactions import DEFAULT_LIMIT, MAX_LIMIT
from mpesa_gateway.domain.phone import PHONE_PATTERN
from mpesa_gateway.usecases import reading

Json = dict[str, Any]


class OpenApiResource:
    """GET /openapi.json."""

    def __init__(self) -> None:
        self._document = document()

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The document, OpenAPI 3.1."""
        resp.media = self._document


def document() -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mpesa-gateway",
            "version": __version__,
            "description": "A payment gateway for M-Pesa STK Push.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"internalSecret": []}, {"bearer": []}],
        "tags": [
            {"name": "payments", "description": "For merchants."},
            {"name": "callbacks", "description": "For Safaricom."},
            {"name": "operations", "description": "For the platform."},
        ],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "internalSecret": {"type": "apiKey", "in": "header", "name": "X-Internal-Secret"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": SCHEMAS,
        },
    }


def _paths() -> Json:
    transaction = "/transactions/{transaction_id}"
    return {
        "/initiate": {"post": _initiate()},
        "/transactions": {"get": _list_transactions()},
        transaction: {
            "parameters": [_transaction_id()],
            "get": _operation(
                "get_transaction",
                "One transaction, as it is.",
                "payments",
                _ok("Transaction"),
                401,
                404,
                503,
            ),
        },
        f"{transaction}/deliveries": {
            "parameters": [_transaction_id()],
            "get": _operation(
                "list_deliveries",
                "Its webhooks, each with every attempt.",
                "payments",
                _ok("Deliveries"),
                401,
                404,
                503,
            ),
        },
        f"{transaction}/redeliver": {
            "parameters": [_transaction_id()],
            "post": _operation(
                "redeliver",
                "Send the transaction's webhooks again, delivered ones too.",
                "payments",
                {"202": _json("The webhooks will be sent again.", "Redelivery")},
                401,
                404,
                409,
                413,
                503,
            ),
        },
        "/callback": {
            "post": _callback("callback", "The plain path, matched by id.", 403, 408, 413, 503)
        },
        "/callback/{token}": {
            "parameters": [
                {
                    "name": "token",
                    "in": "path",
                    "required": True,
                    "description": "Names one push; part of the CallBackURL that it was sent with.",
                    "schema": {"type": "string"},
                }
            ],
            "post": _callback(
                "callback_by_token", "The path of one push.", 403, 404, 408, 413, 503
            ),
        },
        "/health": {"get": _check("health", "Whether the database answers.", "Health")},
        "/livez": {"get": _check("livez", "Whether the process lives.", "Live")},
        "/readyz": {"get": _check("readyz", "Whether to send requests here.", "Ready")},
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document.",
                "tags": ["operations"],
                "security": [],
                "responses": {
                    "200": {
                        "description": "OpenAPI 3.1.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
            }
        },
    }


def _initiate() -> Json:
    operation = _operation(
        "initiate",
        "Ask a customer for a payment.",
        "payments",
        {
            "201": {
                **_json("Accepted by Safaricom, or its outcome is unknown.", "Initiated"),
                "headers": {
                    "Idempotent-Replayed": {
                        "description": "`true` when the key was used before.",
                        "schema": {"type": "string", "const": "true"},
                    }
                },
            }
        },
        400,
        401,
        403,
        408,
        409,
        410,
        413,
        422,
        429,
        502,
        503,
    )
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": _ref("InitiateRequest")}},
    }
    return operation


def _list_transactions() -> Json:
    operation = _operation(
        "list_transactions",
        "Transactions, newest first.",
        "payments",
        _ok("Transactions"),
        400,
        401,
        503,
    )
    operation["parameters"] = [
        _query("status", {"type": "string", "enum": ["PENDING", "COMPLETED", "FAILED"]}),
        _query("phone", {"type": "string", "pattern": PHONE_PATTERN}),
        _query("created_after", {"type": "string", "format": "date-time"}),
        _query("created_before", {"type": "string", "format": "date-time"}),
        _query(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        ),
        _query("cursor", {"type": "string", "pattern": f"^{reading.CURSOR_PATTERN}$"}),
    ]
    return operation


def _callback(operation_id: str, summary: str, *problems: int) -> Json:
    operation = _operation(
        operation_id,
        f"Where Safaricom reports how a payment ended. {summary}",
        "callbacks",
        {"200": _json("The body is committed, whatever it says.", "CallbackAccepted")},
        *problems,
    )
    operation["security"] = []
    operation["requestBody"] = {
        "required": False,
        "description": "Anything; what cannot be read is kept and put into quarantine.",
        "content": {"application/json": {"schema": {}}},
    }
    return operation


def _check(operation_id: str, summary: str, schema: str) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["operations"],
        "security": [],
        "responses": {"200": _json("Yes.", schema), "503": _json("No.", schema)},
    }


def _operation(operation_id: str, summary: str, tag: str, responses: Json, *problems: int) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": [tag],
        "responses": {**responses, **{str(status): _problem(status) for status in problems}},
    }


def _problem(status: int) -> Json:
    answer: Json = {
        "description": PROBLEMS[status],
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
    if status in (409, 429, 503):
        answer["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}
        }
    return answer


PROBLEMS = {
    400: "A field is not valid; every bad field is named.",
    401: "No valid API key.",
    403: "Not allowed.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "Not now.",
    410: "The merchant is being removed.",
    413: "The body is too large.",
    422: "The idempotency key was used for another payment.",
    429: "Too many payments in a minute.",
    502: "Refused by Safaricom for good; the transaction is FAILED.",
    503: "Certainly not sent, or the gateway cannot take it now; the type tells which.",
}


def _transaction_id() -> Json:
    return {
        "name": "transaction_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    }


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _ok(schema: str) -> Json:
    return {"200": _json("As it is.", schema)}


def _json(description: str, schema: str) -> Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": _ref(schema)}},
    }


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}

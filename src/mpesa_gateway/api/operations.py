"""What each path of the OpenAPI document takes and answers."""

from __future__ import annotations

from typing import Any

from mpesa_gateway.api.requests import EXAMPLE_REQUEST
from mpesa_gateway.api.transactions import DEFAULT_LIMIT, MAX_LIMIT
from mpesa_gateway.domain.delivery import WebhookType
from mpesa_gateway.domain.order import MAX_ORDER_ID
from mpesa_gateway.domain.phone import PHONE_PATTERN
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.usecases import reading

Json = dict[str, Any]

PROBLEMS = {
    400: "A field is not valid; every bad field is named.",
    401: "There is no API key in the request, or it is not known.",
    403: "The merchant is suspended, or the sender's address may not call back.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "It cannot be done now; the type says why, `Retry-After` when to try again.",
    410: "The merchant is being removed.",
    413: "The body is too large.",
    422: "The idempotency key was used for another payment.",
    429: "A limit of the merchant or the platform is reached.",
    502: "Safaricom refused the payment for good; the transaction is FAILED.",
    503: "Certainly not sent, or the gateway cannot take it now; the type tells which.",
}
_WEBHOOKS = {
    WebhookType.COMPLETED: "The customer paid. `metadata` is null when a query settled it.",
    WebhookType.FAILED: "The customer did not pay; `failure` says why.",
    WebhookType.UPDATED: "The receipt of a completed payment became known.",
    WebhookType.CONFLICT: "Money was taken although the payment had FAILED, or was taken twice.",
}


def paths() -> Json:
    """Return the `paths` of the document."""
    transaction = "/transactions/{transaction_id}"
    return {
        "/initiate": {"post": _initiate()},
        "/transactions": {"get": _list_transactions()},
        transaction: {"parameters": [_transaction_id()], "get": _get_transaction()},
        f"{transaction}/deliveries": {"parameters": [_transaction_id()], "get": _deliveries()},
        f"{transaction}/redeliver": {"parameters": [_transaction_id()], "post": _redeliver()},
        "/callback": {
            "post": _callback(
                "callback",
                "Take a callback on the plain path",
                "It is matched by its CheckoutRequestID.",
                403, 408, 413, 429, 503,
            )
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
                "callback_by_token",
                "Take the callback of one push",
                "The token names the push, and its merchant's allowlist applies.",
                403, 404, 408, 413, 503,
            ),
        },
        **_checks(),
    }  # fmt: skip


def merchant_webhooks() -> Json:
    """Return the `webhooks` of the document: what the gateway sends to a merchant."""
    return {
        kind.value: {
            "post": {
                "operationId": f"webhook_{kind.name.lower()}",
                "summary": f"`{kind.value}`",
                "description": f"{text} Verify the signature before you believe it, and answer 2xx"
                " within 10 seconds.",
                "tags": ["payments"],
                "security": [],
                "parameters": [_header(name, text) for name, text in _SIGNATURE_HEADERS.items()],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _ref("Webhook")}},
                },
                "responses": {
                    "200": {"description": "Taken; any 2xx will do."},
                    "410": {"description": "Never send this webhook again."},
                },
            }
        }
        for kind, text in _WEBHOOKS.items()
    }


_SIGNATURE_HEADERS = {
    "webhook-id": "The same for every repeat of this webhook.",
    "webhook-timestamp": "When this attempt was signed: seconds since 1970.",
    "webhook-signature": "Standard Webhooks: `v1,` and base64; several while a secret rotates.",
    "X-Signature": "Hexadecimal HMAC-SHA256 of the body; for older integrations.",
}


def _initiate() -> Json:
    operation = _operation(
        "initiate",
        "Ask a customer for a payment",
        "Sends an STK push. A repeat with the same key and body returns the first answer and sends"
        " nothing.",
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
        400, 401, 403, 408, 409, 410, 413, 422, 429, 502, 503,
    )  # fmt: skip
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": _ref("InitiateRequest"), "example": EXAMPLE_REQUEST}
        },
    }
    operation["callbacks"] = {"outcome": {"{$request.body#/webhook_url}": {"post": _outcome()}}}
    return operation


def _outcome() -> Json:
    """The webhook that the payment will send; it also ties the schema to a path for generators."""
    return {
        "operationId": "outcome",
        "summary": "The end of the payment",
        "description": "Sent as one of the `webhooks` of this document.",
        "tags": ["payments"],
        "security": [],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("Webhook")}},
        },
        "responses": {"2XX": {"description": "Taken."}},
    }


def _list_transactions() -> Json:
    operation = _operation(
        "list_transactions",
        "List payments",
        "Newest first. Follow `next` with the parameter `cursor`.",
        "payments",
        {"200": _json("A page.", "Transactions")},
        400, 401, 503,
    )  # fmt: skip
    time = {"type": "string", "format": "date-time"}
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
    operation["parameters"] = [
        _query("status", {"type": "string", "enum": [it.value for it in Status]}),
        _query("phone", {"type": "string", "pattern": PHONE_PATTERN}),
        _query("order_id", {"type": "string", "minLength": 1, "maxLength": MAX_ORDER_ID}),
        _query("created_after", time),
        _query("created_before", time),
        _query("limit", limit),
        _query("cursor", {"type": "string", "pattern": f"^{reading.CURSOR_PATTERN}$"}),
    ]
    return operation


def _get_transaction() -> Json:
    return _operation(
        "get_transaction",
        "Read a payment",
        "Its state, what it means and what happens next.",
        "payments",
        {"200": _json("The payment as it is now.", "Transaction")},
        401, 404, 503,
    )  # fmt: skip


def _deliveries() -> Json:
    return _operation(
        "list_deliveries",
        "List the webhooks of a payment",
        "Each with every attempt, oldest first.",
        "payments",
        {"200": _json("The webhooks and their attempts.", "Deliveries")},
        401, 404, 503,
    )  # fmt: skip


def _redeliver() -> Json:
    return _operation(
        "redeliver",
        "Send the webhooks of a payment again",
        "Delivered ones too, with the same ids and bytes.",
        "payments",
        {"202": _json("The webhooks will be sent again.", "Deliveries")},
        401, 404, 409, 413, 503,
    )  # fmt: skip


def _callback(operation_id: str, summary: str, text: str, *problems: int) -> Json:
    operation = _operation(
        operation_id,
        summary,
        f"Safaricom reports here how a payment ended. {text}",
        "callbacks",
        {"200": _json("The body is committed, whatever it says.", "CallbackAccepted")},
        *problems,
    )
    operation["security"] = []
    operation["requestBody"] = {
        "required": False,
        "description": "Anything; what cannot be read is stored and quarantined.",
        "content": {"application/json": {"schema": {}}},
    }
    return operation


def _checks() -> Json:
    return {
        "/health": {"get": _check("health", "Tell whether the database answers", "Health")},
        "/livez": {"get": _check("livez", "Tell whether the process lives", "Live")},
        "/readyz": {"get": _check("readyz", "Tell whether to send requests here", "Ready")},
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "Read this document",
                "description": "OpenAPI 3.1; as a page at `/docs`.",
                "tags": ["operations"],
                "security": [],
                "responses": {
                    "200": {
                        "description": "The document.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
            }
        },
    }


def _check(operation_id: str, summary: str, schema: str) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "description": "For probes and load balancers.",
        "tags": ["operations"],
        "security": [],
        "responses": {"200": _json("It does.", schema), "503": _json("It does not.", schema)},
    }


def _operation(
    operation_id: str, summary: str, text: str, tag: str, responses: Json, *problems: int
) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "description": text,
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


def _transaction_id() -> Json:
    return {
        "name": "transaction_id",
        "in": "path",
        "required": True,
        "description": "From the answer of `POST /initiate`.",
        "schema": {"type": "string", "format": "uuid"},
    }


def _header(name: str, text: str) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": text,
        "schema": {"type": "string"},
    }


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _json(description: str, schema: str) -> Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": _ref(schema)}},
    }


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}

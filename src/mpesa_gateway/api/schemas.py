"""JSON schemas of the API's bodies, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from mpesa_gateway.domain.amount import MAX_AMOUNT
from mpesa_gateway.domain.endpoint import MAX_URL_LENGTH
from mpesa_gateway.domain.phone import PHONE_PATTERN
from mpesa_gateway.domain.problem import TITLES, TYPE_PREFIX
from mpesa_gateway.domain.transaction import ACCOUNT_REFERENCE_PATTERN, DESCRIPTION_PATTERN

Json = dict[str, Any]
UUID4_PATTERN = (
    "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"
)


def _object(properties: Json, *, optional: tuple[str, ...] = ()) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


_TEXT: Json = {"type": "string"}
_NULL_TEXT = _nullable(_TEXT)
_TIME: Json = {"type": "string", "format": "date-time"}
_UUID: Json = {"type": "string", "format": "uuid"}
_STATUS: Json = {"type": "string", "enum": ["PENDING", "COMPLETED", "FAILED"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NUMBER_OR_TEXT: Json = {"type": ["integer", "string", "null"]}

_CONFLICT = _object(
    {
        "kind": _TEXT,
        "receipt": _NULL_TEXT,
        "result_code": _NULL_TEXT,
        "opened_at": _TIME,
        "closed_at": _nullable(_TIME),
        "closing_note": _NULL_TEXT,
    }
)
_TRANSACTION = _object(
    {
        "transaction_id": _UUID,
        "merchant": _TEXT,
        "status": _STATUS,
        "amount": {"type": "string", "description": "Whole shillings.", "pattern": "^[0-9]+$"},
        "phone": _TEXT,
        "account_reference": _TEXT,
        "description": _TEXT,
        "webhook_url": _TEXT,
        "idempotency_key": _UUID,
        "push": {
            "type": "string",
            "enum": ["INTENT", "SENDING", "ACCEPTED", "REFUSED", "NOT_SENT", "UNKNOWN"],
        },
        "checkout_request_id": _NULL_TEXT,
        "receipt": _NULL_TEXT,
        "metadata": _nullable(
            _object(
                {
                    "Amount": _NUMBER_OR_TEXT,
                    "MpesaReceiptNumber": _NULL_TEXT,
                    "TransactionDate": _NUMBER_OR_TEXT,
                    "PhoneNumber": _NUMBER_OR_TEXT,
                }
            )
        ),
        "result": _nullable(
            _object(
                {
                    "code": _NULL_TEXT,
                    "reason": _TEXT,
                    "cause": _NULL_TEXT,
                    "message": _object({"en": _TEXT, "sw": _TEXT}),
                    "customer_may_retry": {"type": "boolean"},
                    "recognised": {"type": "boolean"},
                }
            )
        ),
        "failure": _nullable(_object({"code": _NULL_TEXT, "reason": _NULL_TEXT})),
        "settled_by": _NULL_TEXT,
        "attention": _NULL_TEXT,
        "next_step": _nullable(_object({"action": _TEXT, "at": _nullable(_TIME)})),
        "created_at": _TIME,
        "updated_at": _TIME,
        "finished_at": _nullable(_TIME),
        "conflicts": _list(_CONFLICT),
    },
    optional=("conflicts",),
)
_ATTEMPT = _object(
    {
        "attempt_number": {"type": "integer", "minimum": 1},
        "outcome": {
            "type": "string",
            "enum": ["started", "delivered", "failed", "refused", "unknown"],
        },
        "success": {"type": "boolean"},
        "response_status_code": {"type": ["integer", "null"]},
        "response_time_ms": {"type": ["integer", "null"]},
        "error_message": _NULL_TEXT,
        "attempted_at": _TIME,
    }
)
_DELIVERY: Json = {
    "id": {"type": "string", "description": "The `webhook-id` of every attempt."},
    "transaction_id": _UUID,
    "type": {
        "type": "string",
        "enum": [
            "transaction.completed",
            "transaction.failed",
            "transaction.updated",
            "transaction.conflict",
        ],
    },
    "state": {"type": "string", "enum": ["PENDING", "DELIVERED", "EXHAUSTED", "GONE"]},
    "url": _TEXT,
    "attempts_made": _COUNT,
    "next_attempt_at": _nullable(_TIME),
    "parked": {"type": "boolean"},
    "created_at": _TIME,
    "finished_at": _nullable(_TIME),
}

SCHEMAS: Json = {
    "InitiateRequest": _object(
        {
            "amount": {
                "description": 'Whole shillings above 0; `10`, `"10"` and `"10.00"` are the same.',
                "anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": int(MAX_AMOUNT)},
                    {"type": "string", "pattern": r"^[1-9][0-9]{0,4}(\.0{1,2})?$"},
                ],
            },
            "phone": {"type": "string", "pattern": PHONE_PATTERN},
            "webhook_url": {
                "type": "string",
                "format": "uri",
                "maxLength": MAX_URL_LENGTH,
                "description": "Public https endpoint. Optional when the merchant has one.",
            },
            "idempotency_key": {
                "type": "string",
                "pattern": UUID4_PATTERN,
                "description": "A UUID of version 4. The same key never charges twice, for ever.",
            },
            "account_reference": {
                "type": "string",
                "pattern": ACCOUNT_REFERENCE_PATTERN,
                "description": "Shown in the prompt and in the customer's SMS.",
            },
            "description": {"type": "string", "pattern": DESCRIPTION_PATTERN},
        },
        optional=("webhook_url", "account_reference", "description"),
    ),
    "Initiated": _object(
        {"transaction_id": _UUID, "status": {"type": "string", "const": "PENDING"}}
    ),
    "Transaction": _TRANSACTION,
    "Transactions": _object({"items": _list(_TRANSACTION), "next": _NULL_TEXT}),
    "Deliveries": _object({"items": _list(_object({**_DELIVERY, "attempts": _list(_ATTEMPT)}))}),
    "Redelivery": _object({"items": _list(_object(_DELIVERY))}),
    "CallbackAccepted": _object(
        {"ResultCode": {"type": "integer", "const": 0}, "ResultDesc": {"type": "string"}}
    ),
    "Health": _object({"status": _TEXT, "database": {"type": "string", "enum": ["up", "down"]}}),
    "Live": _object({"status": _TEXT}),
    "Ready": _object(
        {
            "status": _TEXT,
            "checks": {"type": "object", "additionalProperties": {"type": "boolean"}},
        }
    ),
    "Problem": {
        "type": "object",
        "description": "RFC 9457 problem details.",
        "properties": {
            "type": {"type": "string", "enum": [TYPE_PREFIX + slug for slug in TITLES]},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "errors": _list(_object({"field": _TEXT, "message": _TEXT})),
            "retry_after": {"type": "integer", "minimum": 1},
            "transaction_id": _UUID,
            "transaction_status": _STATUS,
            "reason": _TEXT,
            "safaricom": _object({"code": _NULL_TEXT, "message": _NULL_TEXT}),
        },
        "required": ["type", "title", "status", "detail"],
        "additionalProperties": False,
    },
}

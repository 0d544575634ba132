"""POST /initiate's body: one class parses it, limits it and describes it in OpenAPI.

Requests are closed: an unknown field is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from mpesa_gateway.domain.amount import parse_amount
from mpesa_gateway.domain.endpoint import MAX_URL_LENGTH, parse_endpoint
from mpesa_gateway.domain.ids import parse_uuid4
from mpesa_gateway.domain.order import (
    MAX_CUSTOM_KEY,
    MAX_CUSTOM_KEYS,
    MAX_CUSTOM_VALUE,
    MAX_ORDER_ID,
    parse_custom_data,
    parse_order_id,
)
from mpesa_gateway.domain.phone import PHONE_PATTERN, parse_phone
from mpesa_gateway.domain.transaction import (
    ACCOUNT_REFERENCE_PATTERN,
    DEFAULT_ACCOUNT_REFERENCE,
    DEFAULT_DESCRIPTION,
    DESCRIPTION_PATTERN,
    PaymentRequest,
    parse_reference,
)
from mpesa_gateway.errors import FieldProblem, InvalidInputError

AMOUNT_TEXT_PATTERN = r"^[1-9][0-9]{0,17}(\.0{1,2})?$"
UUID4_PATTERN = (
    "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"
)
# Postgres keeps no NUL in a text.
STORABLE_PATTERN = r"^[^\u0000]*$"
MAX_FIELD_NAME = 64
# A body of 64 KiB has room for ten thousand names; to list them would hold the event loop up.
MAX_NAMED_PROBLEMS = 20
EXAMPLE_REQUEST: dict[str, JsonValue] = {
    "amount": "100",
    "phone": "254712345678",
    "webhook_url": "https://shop.example/mpesa",
    "idempotency_key": "7c4b81c7-73a5-414b-97b1-4920d3e8ddb8",
    "account_reference": "Order 1042",
}


def _checked(parse: Callable[[Any], Any]) -> PlainValidator:
    """Let a parser of the domain decide, and pydantic collect what it says."""

    def validate(value: Any) -> Any:
        try:
            return parse(value)
        except InvalidInputError as error:
            sentence = "; ".join(problem.message for problem in error.problems)
            # A sentence may hold braces, which are pydantic's placeholders.
            raise PydanticCustomError("invalid", "{sentence}", {"sentence": sentence}) from error

    return PlainValidator(validate)


def _null_is_absent(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def _optional(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "null"}]})


class InitiateRequest(BaseModel):
    """A payment that a customer is asked for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [EXAMPLE_REQUEST]},
    )

    amount: Annotated[
        Decimal,
        _checked(parse_amount),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer", "minimum": 1},
                    {"type": "string", "pattern": AMOUNT_TEXT_PATTERN},
                ],
                "description": 'Whole shillings above 0: `10`, `"10"` and `"10.00"` are the same.'
                " The merchant and the platform have limits of their own.",
            }
        ),
    ]
    phone: Annotated[
        str,
        _checked(parse_phone),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": PHONE_PATTERN,
                "description": "The payer: 254 and nine digits.",
            }
        ),
    ]
    idempotency_key: Annotated[
        uuid.UUID,
        _checked(lambda value: parse_uuid4(value, "idempotency_key")),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": UUID4_PATTERN,
                "description": "A UUID of version 4, made and stored before the call. Sent again"
                " with the same body, it returns the first answer and sends nothing.",
            }
        ),
    ]
    webhook_url: Annotated[
        str | None,
        # Whether the address may be called is decided with the merchant's settings.
        _checked(_null_is_absent(lambda value: parse_endpoint(value, allow_private=True).url)),
        _optional(
            {
                "type": "string",
                "format": "uri",
                "maxLength": MAX_URL_LENGTH,
                "description": "A public https endpoint; may be absent when the merchant has one.",
            }
        ),
    ] = None
    account_reference: Annotated[
        str | None,
        _checked(
            _null_is_absent(
                lambda value: parse_reference(
                    value, "account_reference", ACCOUNT_REFERENCE_PATTERN, 12
                )
            )
        ),
        _optional(
            {
                "type": "string",
                "pattern": ACCOUNT_REFERENCE_PATTERN,
                "description": "Shown in the prompt and in the customer's SMS.",
            }
        ),
    ] = None
    description: Annotated[
        str | None,
        _checked(
            _null_is_absent(
                lambda value: parse_reference(value, "description", DESCRIPTION_PATTERN, 13)
            )
        ),
        _optional({"type": "string", "pattern": DESCRIPTION_PATTERN}),
    ] = None
    order_id: Annotated[
        str | None,
        _checked(_null_is_absent(parse_order_id)),
        _optional(
            {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_ORDER_ID,
                "pattern": STORABLE_PATTERN,
                "description": "Your own order. While a payment of it is paid or may still be, no"
                " other one begins, whatever its idempotency key.",
            }
        ),
    ] = None
    custom_data: Annotated[
        dict[str, str] | None,
        _checked(_null_is_absent(parse_custom_data)),
        _optional(
            {
                "type": "object",
                "maxProperties": MAX_CUSTOM_KEYS,
                "propertyNames": {
                    "minLength": 1,
                    "maxLength": MAX_CUSTOM_KEY,
                    "pattern": STORABLE_PATTERN,
                },
                "additionalProperties": {
                    "type": "string",
                    "maxLength": MAX_CUSTOM_VALUE,
                    "pattern": STORABLE_PATTERN,
                },
                "description": "Your own texts, echoed in answers and webhooks.",
            }
        ),
    ] = None


def parse_payment_request(body: dict[str, Any], *, allow_private: bool) -> PaymentRequest:
    """Return what a caller asks for. Raises InvalidInputError with every bad field at once."""
    # Not left to pydantic: a name may be a text that has no UTF-8.
    known = {name: value for name, value in body.items() if name in InitiateRequest.model_fields}
    unknown = (name for name in body if name not in known)
    problems = [
        FieldProblem(name[:MAX_FIELD_NAME], "is not a field of this request")
        for name in islice(unknown, MAX_NAMED_PROBLEMS)
    ]
    request: InitiateRequest | None = None
    try:
        request = InitiateRequest.model_validate(known)
    except ValidationError as error:
        problems += [_field_problem(it) for it in error.errors(include_url=False)]
    url = body.get("webhook_url")
    if url is not None and not any(it.field == "webhook_url" for it in problems):
        try:
            parse_endpoint(url, allow_private=allow_private)
        except InvalidInputError as refused:
            problems += refused.problems
    if problems or request is None:
        raise InvalidInputError(problems[:MAX_NAMED_PROBLEMS])
    return PaymentRequest(
        amount=request.amount,
        phone=request.phone,
        idempotency_key=request.idempotency_key,
        webhook_url=request.webhook_url,
        account_reference=request.account_reference or DEFAULT_ACCOUNT_REFERENCE,
        description=request.description or DEFAULT_DESCRIPTION,
        order_id=request.order_id,
        custom_data=request.custom_data or None,
    )


def _field_problem(error: Any) -> FieldProblem:
    field = str(error["loc"][0])
    if error["type"] == "missing":
        return FieldProblem(field, "is required")
    return FieldProblem(field, error["msg"])

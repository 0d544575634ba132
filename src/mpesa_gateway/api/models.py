"""The API's answers and webhooks as pydantic models, from which OpenAPI is generated.

Responses are open: a client must accept members that it does not know, so that adding one is no
breaking change. What `domain/representation.py` writes is held against them by tests.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from mpesa_gateway.api.requests import InitiateRequest
from mpesa_gateway.domain.delivery import AttemptOutcome, DeliveryState, WebhookType
from mpesa_gateway.domain.problem_details import TITLES, TYPE_PREFIX
from mpesa_gateway.domain.results import REASONS
from mpesa_gateway.domain.transaction import PushState, Status

_EXAMPLE_ID = "01932c5e-7f2a-7c3e-9d41-0c8b6a2f5e11"
_EXAMPLE_TIME = "2026-01-31T12:00:05.000Z"
# A member that may be absent and is never null.
Absent = SkipJsonSchema[None]

NumberOrText = int | str | None
Reason = Annotated[str, WithJsonSchema({"type": "string", "enum": list(REASONS)})]
Time = Annotated[datetime, Field(json_schema_extra={"examples": [_EXAMPLE_TIME]})]
CustomData = Annotated[
    dict[str, str], Field(description="What the request brought; an empty object without it.")
]
Count = Annotated[int, Field(ge=0)]


class Initiated(BaseModel):
    """The prompt is on its way to the phone, or may be."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"transaction_id": _EXAMPLE_ID, "status": "PENDING"}]}
    )

    transaction_id: uuid.UUID
    status: Literal["PENDING"]


class Metadata(BaseModel):
    """What Safaricom said of a payment, with Safaricom's names."""

    Amount: NumberOrText
    MpesaReceiptNumber: str | None
    TransactionDate: NumberOrText = Field(description="East Africa Time, as YYYYMMDDHHMMSS.")
    PhoneNumber: str | None = Field(
        description="As it came, always as text; Safaricom may mask or hash it."
    )


class Message(BaseModel):
    """A sentence for the customer, in English and Swahili."""

    en: str
    sw: str


class Result(BaseModel):
    """What the end of a payment means."""

    code: str | None = Field(description="Safaricom's ResultCode or errorCode, if there is one.")
    reason: Reason = Field(description="A stable word; docs/failure-reasons.md explains each.")
    cause: Literal["customer", "merchant", "safaricom", "request", "unknown"] | None = Field(
        description="Whose doing it is."
    )
    message: Message
    customer_may_retry: bool
    recognised: bool = Field(description="False for a code that is not in our catalogue.")


class Failure(BaseModel):
    """Why a payment failed."""

    code: str | None
    reason: Reason | None


class NextStep(BaseModel):
    """What happens next to a pending payment."""

    action: Literal["push_answer", "wait_for_callback", "query", "person"]
    at: Time | None


class Conflict(BaseModel):
    """A truth that contradicts a final state."""

    kind: str
    receipt: str | None
    result_code: str | None
    opened_at: Time
    closed_at: Time | None
    closing_note: str | None


class Transaction(BaseModel):
    """A payment as it is now."""

    transaction_id: uuid.UUID
    merchant: str
    status: Status
    amount: str = Field(pattern="^[0-9]+$", description="Whole shillings.")
    phone: str
    account_reference: str
    description: str
    order_id: str | None
    custom_data: CustomData
    webhook_url: str
    idempotency_key: uuid.UUID
    push: PushState
    checkout_request_id: str | None
    receipt: str | None
    metadata: Metadata | None
    result: Result | None
    failure: Failure | None
    settled_by: str | None
    attention: str | None = Field(description="A sentence when an operator must look, else null.")
    next_step: NextStep | None
    created_at: Time
    updated_at: Time
    finished_at: Time | None
    conflicts: list[Conflict] = Field(default=[], description="Not in lists.")


class Transactions(BaseModel):
    """A page of payments, newest first."""

    items: list[Transaction]
    next: str | None = Field(description="The cursor of the next page; null on the last.")


class Attempt(BaseModel):
    """One HTTP request to an endpoint."""

    attempt_number: int = Field(ge=1)
    outcome: AttemptOutcome
    success: bool
    response_status_code: int | None
    response_time_ms: int | None
    error_message: str | None
    response_body: str | None = Field(
        description="The first 2,048 bytes of the answer at most; what is no UTF-8 is replaced."
    )
    attempted_at: Time


class Delivery(BaseModel):
    """One webhook to one endpoint."""

    id: str = Field(description="The `webhook-id` of every attempt.")
    transaction_id: uuid.UUID
    type: WebhookType
    state: DeliveryState
    url: str
    attempts_made: Count
    next_attempt_at: Time | None
    parked: bool
    created_at: Time
    finished_at: Time | None
    attempts: list[Attempt] = Field(default=[], description="Not in the answer of redeliver.")
    request_body: str | None = Field(
        default=None, description="What every attempt sends. Not in the answer of redeliver."
    )


class Deliveries(BaseModel):
    """The webhooks of a payment."""

    items: list[Delivery]


class CallbackAccepted(BaseModel):
    """What Safaricom is answered once the body is committed."""

    ResultCode: Literal[0]
    ResultDesc: str


class Health(BaseModel):
    """Whether the database answers."""

    status: str
    database: str


class Live(BaseModel):
    """Whether the process lives."""

    status: str


class Ready(BaseModel):
    """Whether to send requests here."""

    status: str
    checks: dict[str, bool]


class FieldErrors(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class SafaricomAnswer(BaseModel):
    """Safaricom's own words."""

    code: str | None
    message: str | None


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: Annotated[
        str,
        WithJsonSchema({"type": "string", "enum": [TYPE_PREFIX + slug for slug in TITLES]}),
    ]
    title: str
    status: int
    detail: str
    errors: list[FieldErrors] = []
    retry_after: Annotated[int, Field(ge=1, description="Seconds.")] | Absent = None
    transaction_id: uuid.UUID | Absent = None
    transaction_status: Status | Absent = None
    receipt: Annotated[str, Field(description="Only of `order-paid`.")] | Absent = None
    reason: Reason | Absent = None
    safaricom: SafaricomAnswer | Absent = None


class WebhookConflict(BaseModel):
    """What contradicts a final state."""

    kind: str
    receipt: str | None
    result_code: str | None
    metadata: Metadata | None


class Webhook(BaseModel):
    """The body of a webhook; the bytes are the same in every attempt."""

    type: WebhookType
    transaction_id: uuid.UUID
    merchant: str
    status: Status
    amount: str = Field(pattern="^[0-9]+$", description="Whole shillings.")
    phone: str
    account_reference: str
    order_id: str | None
    custom_data: CustomData
    metadata: Metadata | None
    result: Result | None
    timestamp: Time
    failure: Failure | Absent = Field(default=None, description="Only of a payment that FAILED.")
    conflict: WebhookConflict | Absent = Field(
        default=None, description="Only of `transaction.conflict`."
    )


MODELS: tuple[type[BaseModel], ...] = (
    InitiateRequest,
    Initiated,
    Transaction,
    Transactions,
    Deliveries,
    CallbackAccepted,
    Health,
    Live,
    Ready,
    Problem,
    Webhook,
)

"""POST /initiate: a payment is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from falcon.asgi import Request, Response

from mpesa_gateway import tracing
from mpesa_gateway.api.auth import authenticate
from mpesa_gateway.api.bodies import INITIATE_LIMIT, parse_json_object, read_body
from mpesa_gateway.api.errors import PROBLEM_JSON
from mpesa_gateway.api.threads import Threads
from mpesa_gateway.domain.amount import parse_amount
from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.ids import parse_uuid4
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.phone import parse_phone
from mpesa_gateway.domain.transaction import (
    ACCOUNT_REFERENCE_PATTERN,
    DEFAULT_ACCOUNT_REFERENCE,
    DEFAULT_DESCRIPTION,
    DESCRIPTION_PATTERN,
    PaymentRequest,
    parse_reference,
)
from mpesa_gateway.domain.work import Work
from mpesa_gateway.errors import FieldProblem, InvalidInputError
from mpesa_gateway.merchants import MerchantDirectory
from mpesa_gateway.usecases.payments import InitiateAnswer, Payments

FIELDS = (
    "amount",
    "phone",
    "webhook_url",
    "idempotency_key",
    "account_reference",
    "description",
)
Value = TypeVar("Value")


@dataclass
class _Fields:
    """Reads one field after the other and remembers what was wrong."""

    body: dict[str, Any]
    problems: list[FieldProblem] = field(default_factory=list)

    def read(
        self, name: str, parse: Callable[[Any], Value], default: Value | None = None
    ) -> Value | None:
        """The parsed value; the default where the field is absent and has one."""
        if name not in self.body and default is not None:
            return default
        try:
            return parse(self.body.get(name))
        except InvalidInputError as error:
            missing = name not in self.body
            self.problems += [FieldProblem(name, "is required")] if missing else error.problems
            return None

    def read_optional(self, name: str, parse: Callable[[Any], Value]) -> Value | None:
        """The parsed value, None where the field is absent."""
        return self.read(name, parse) if name in self.body else None


def parse_payment_request(body: dict[str, Any], *, allow_private: bool) -> PaymentRequest:
    """What a caller asks for. Raises InvalidInputError with every bad field at once."""
    fields = _Fields(body)
    for name in body:
        if name not in FIELDS:
            fields.problems.append(FieldProblem(name[:64], "is not a field of this request"))
    amount = fields.read("amount", parse_amount)
    phone = fields.read("phone", parse_phone)
    key = fields.read("idempotency_key", lambda it: parse_uuid4(it, "idempotency_key"))
    endpoint = fields.read_optional(
        "webhook_url", lambda it: parse_endpoint(it, allow_private=allow_private)
    )
    reference = fields.read(
        "account_reference",
        lambda it: parse_reference(it, "account_reference", ACCOUNT_REFERENCE_PATTERN, 12),
        DEFAULT_ACCOUNT_REFERENCE,
    )
    description = fields.read(
        "description",
        lambda it: parse_reference(it, "description", DESCRIPTION_PATTERN, 13),
        DEFAULT_DESCRIPTION,
    )
    if fields.problems:
        raise InvalidInputError(fields.problems)
    assert amount is not None
    assert phone is not None
    assert key is not None
    return PaymentRequest(
        amount=amount,
        phone=phone,
        idempotency_key=key,
        webhook_url=endpoint.url if endpoint is not None else None,
        account_reference=reference or DEFAULT_ACCOUNT_REFERENCE,
        description=description or DEFAULT_DESCRIPTION,
    )


class InitiateResource:
    """POST /initiate. The push runs to its end although the caller hangs up."""

    def __init__(
        self,
        payments: Payments,
        merchants: MerchantDirectory,
        threads: Threads,
        ring: Callable[[list[Work]], None],
    ) -> None:
        self._payments = payments
        self._merchants = merchants
        self._threads = threads
        self._ring = ring

    async def on_post(self, req: Request, resp: Response) -> None:
        """201 when the prompt is on its way, or may be; docs/api.md has the table of answers."""
        merchant = authenticate(req, self._merchants.current())
        raw = await read_body(req, INITIATE_LIMIT)
        request = parse_payment_request(
            parse_json_object(raw, req.content_type), allow_private=self._payments.allow_private
        )
        parent = tracing.parse_traceparent(req.get_header("traceparent"))
        with tracing.span("initiate", parent=parent, kind="server", merchant=merchant.name) as span:
            answer = await self._threads.run(lambda: self._initiate(merchant, request))
            span.set(status=answer.status, replayed=answer.replayed)
            tracing.follow(answer.transaction_id, span.traceparent)
        resp.status = answer.status
        resp.content_type = "application/json" if answer.status < 400 else PROBLEM_JSON
        resp.text = answer.body
        if answer.replayed:
            resp.set_header("Idempotent-Replayed", "true")
        if answer.retry_after_s is not None:
            resp.set_header("Retry-After", str(answer.retry_after_s))

    def _initiate(self, merchant: Merchant, request: PaymentRequest) -> InitiateAnswer:
        answer, effects = self._payments.initiate(merchant, request)
        self._ring(effects.work)
        return answer

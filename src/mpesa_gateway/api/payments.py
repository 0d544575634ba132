"""POST /initiate: a payment is asked for."""

from __future__ import annotations

from collections.abc import Callable

from falcon.asgi import Request, Response

from mpesa_gateway.api.auth import authenticate
from mpesa_gateway.api.bodies import INITIATE_LIMIT, parse_json_object, read_body
from mpesa_gateway.api.errors import PROBLEM_JSON
from mpesa_gateway.api.requests import parse_payment_request
from mpesa_gateway.api.threads import Threads
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.transaction import PaymentRequest
from mpesa_gateway.domain.work import Work
from mpesa_gateway.merchants.directory import MerchantDirectory
from mpesa_gateway.telemetry import tracing
from mpesa_gateway.usecases.payments import InitiateAnswer, Payments


class InitiateResource:
    """POST /initiate. The push runs to its end although the caller hangs up."""

    def __init__(
        self,
        payments: Payments,
        merchants: MerchantDirectory,
        threads: Threads,
        notify: Callable[[list[Work]], None],
    ) -> None:
        self._payments = payments
        self._merchants = merchants
        self._threads = threads
        self._notify = notify

    async def on_post(self, req: Request, resp: Response) -> None:
        """201 when the prompt is on its way, or may be; docs/api.md has the table of answers."""
        merchant = authenticate(req, self._merchants.current())
        raw = await read_body(req, INITIATE_LIMIT)
        request = parse_payment_request(
            parse_json_object(raw, req.content_type), allow_private=self._payments.allow_private
        )
        parent = tracing.parse_traceparent(req.get_header("traceparent"))
        with tracing.span("initiate", parent=parent, kind="server", merchant=merchant.name) as span:
            answer = await self._threads.run(
                merchant.name, lambda: self._initiate(merchant, request)
            )
            span.set(status=answer.status, replayed=answer.replayed)
            tracing.follow(answer.transaction_id, span.traceparent)
        resp.status = answer.status
        resp.content_type = "application/json" if answer.status < 400 else PROBLEM_JSON
        resp.text = answer.body
        if answer.replayed:
            resp.set_header("Idempotent-Replayed", "true")
        # A replay says nothing new: the wait that the first answer asked for began with that one.
        if answer.retry_after_s is not None and not answer.replayed:
            resp.set_header("Retry-After", str(answer.retry_after_s))

    def _initiate(self, merchant: Merchant, request: PaymentRequest) -> InitiateAnswer:
        answer, effects = self._payments.initiate(merchant, request)
        self._notify(effects.work)
        return answer

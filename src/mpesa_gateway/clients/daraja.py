"""Safaricom's Daraja API: OAuth, STK push for paybill and till, STK query.

Wire formats: Daraja 3.0 pages (December 2025). One call here is one HTTP request; what may be
repeated is decided in `usecases/`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import requests

from mpesa_gateway.clients.answers import Answer, read_answer
from mpesa_gateway.clients.deadline import MAX_BODY_BYTES, Exchange, exchange
from mpesa_gateway.domain.amount import amount_text
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.oauth import TokenAnswer, classify_token
from mpesa_gateway.domain.push import PushOutcome, classify_push, not_sent, unknown
from mpesa_gateway.domain.query import Asked, QueryClass, QueryOutcome, classify_query
from mpesa_gateway.failpoint import step
from mpesa_gateway.telemetry import metrics, tracing
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

# M-Pesa runs on East Africa Time, which has no daylight saving.
EAT = timezone(timedelta(hours=3), "EAT")
TOKEN_TIMEOUT_S = 5.0
# Too short makes payments unknown; the caller of /initiate waits this long at most.
PUSH_TIMEOUT_S = 15.0
QUERY_TIMEOUT_S = 8.0
ANSWER_LIMIT = MAX_BODY_BYTES


def eat_timestamp(now: datetime) -> str:
    """`YYYYMMDDHHmmss` in East Africa Time."""
    return now.astimezone(EAT).strftime("%Y%m%d%H%M%S")


def stk_password(short_code: str, passkey: str, timestamp: str) -> str:
    """base64(short code + passkey + timestamp). Reversible: as secret as the passkey."""
    return base64.b64encode(f"{short_code}{passkey}{timestamp}".encode()).decode()


@dataclass(frozen=True)
class Push:
    """One STK push, ready to send."""

    merchant: Merchant
    amount: Decimal
    phone: str
    callback_url: str
    account_reference: str
    description: str


class Daraja:
    """Calls Daraja. `clock` gives the time that goes into passwords."""

    def __init__(self, session: requests.Session, clock: Callable[[], datetime]) -> None:
        self._session = session
        self._clock = clock

    def fetch_token(self, base_url: str, consumer_key: str, consumer_secret: str) -> TokenAnswer:
        """A new access token. It ends the one before it, so fetch through `TokenCache` only."""
        started = time.monotonic()
        with tracing.span("daraja token", kind="client") as span:
            answer = self._fetch_token(base_url, consumer_key, consumer_secret)
            outcome = "ok" if answer.token else "refused" if answer.refused else "unreachable"
            span.set(outcome=outcome)
        _observe("token", outcome, started)
        return answer

    def _fetch_token(self, base_url: str, key: str, secret: str) -> TokenAnswer:
        basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
        url = f"{base_url}/oauth/v1/generate?grant_type=client_credentials"
        with exchange(TOKEN_TIMEOUT_S), step("daraja.token"):
            try:
                response = self._session.get(
                    url,
                    headers={"Authorization": f"Basic {basic}"},
                    timeout=TOKEN_TIMEOUT_S,
                    allow_redirects=False,
                    stream=True,
                )
                answer = read_answer(response, ANSWER_LIMIT)
                return classify_token(answer.status, answer.readable_body)
            except Exception as error:  # noqa: BLE001 - nothing that is answered may escape
                return TokenAnswer(message=f"OAuth did not answer: {_problem(error, 'token')}")

    def push(self, push: Push, token: str) -> PushOutcome:
        """Send an STK push, once. Never raises for what the network or Safaricom does.

        Types are those of the only official example; stricter stand-ins refuse others.
        """
        merchant, timestamp = push.merchant, eat_timestamp(self._clock())
        body: dict[str, object] = {
            "BusinessShortCode": _as_number(merchant.short_code),
            "Password": stk_password(merchant.short_code, merchant.credentials.passkey, timestamp),
            "Timestamp": timestamp,
            "TransactionType": merchant.transaction_type,
            "Amount": amount_text(push.amount),
            "PartyA": push.phone,
            "PartyB": merchant.party_b,
            "PhoneNumber": push.phone,
            "CallBackURL": push.callback_url,
            "AccountReference": push.account_reference,
            "TransactionDesc": push.description,
        }
        started = time.monotonic()
        with tracing.span("daraja push", kind="client") as span:
            outcome = self._push(merchant.base_url, body, token)
            label = "throttled" if outcome.throttled else outcome.kind.lower()
            span.set(outcome=label, code=outcome.code)
        _observe("push", label, started)
        return outcome

    def _push(self, base_url: str, body: dict[str, object], token: str) -> PushOutcome:
        url = f"{base_url}/mpesa/stkpush/v1/processrequest"
        with exchange(PUSH_TIMEOUT_S) as current, step("daraja.push"):
            try:
                answer = self._post(url, body, token, PUSH_TIMEOUT_S)
                return classify_push(answer.status, answer.readable_body or b"")
            except Exception as error:  # noqa: BLE001 - nothing that is answered may escape
                return _unanswered(current, _problem(error, "push"))

    def query(self, merchant: Merchant, asked: Asked, token: str) -> QueryOutcome:
        """Ask how a push ended. Never raises for what the network or Safaricom does."""
        timestamp = eat_timestamp(self._clock())
        body: dict[str, object] = {
            "BusinessShortCode": merchant.short_code,
            "Password": stk_password(merchant.short_code, merchant.credentials.passkey, timestamp),
            "Timestamp": timestamp,
            "CheckoutRequestID": asked.checkout_request_id,
        }
        url = f"{merchant.base_url}/mpesa/stkpushquery/v1/query"
        started = time.monotonic()
        with tracing.span("daraja query", kind="client") as span:
            outcome = self._query(url, body, token, asked)
            span.set(outcome=outcome.kind.lower(), code=outcome.code)
        _observe("query", outcome.kind.lower(), started)
        return outcome

    def _query(self, url: str, body: dict[str, object], token: str, asked: Asked) -> QueryOutcome:
        with exchange(QUERY_TIMEOUT_S), step("daraja.query"):
            try:
                answer = self._post(url, body, token, QUERY_TIMEOUT_S)
                return classify_query(answer.status, answer.readable_body or b"", asked)
            except Exception as error:  # noqa: BLE001 - nothing that is answered may escape
                problem = f"no answer: {_problem(error, 'query')}"
                return QueryOutcome(QueryClass.NO_INFORMATION, None, problem)

    def _post(self, url: str, body: dict[str, object], token: str, timeout_s: float) -> Answer:
        response = self._session.post(
            url,
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            allow_redirects=False,
            stream=True,
        )
        return read_answer(response, ANSWER_LIMIT)


def _as_number(short_code: str) -> int | str:
    """The short code as the official example writes it; text where a number would lose a zero."""
    is_number = short_code.isascii() and short_code.isdigit() and not short_code.startswith("0")
    return int(short_code) if is_number else short_code


def _unanswered(current: Exchange, problem: str) -> PushOutcome:
    """What decides is not the kind of error but whether a byte of the request left."""
    if current.sent:
        return unknown(f"no answer after the request left: {problem}")
    return not_sent(f"no connection: {problem}")


def _problem(error: Exception, operation: str) -> str:
    """The error's class. One that no network explains is logged."""
    name = type(error).__name__
    if not isinstance(error, requests.RequestException | OSError):
        LOGGER.error("Daraja call failed unexpectedly", operation=operation, problem=name)
    return name


def _observe(operation: str, outcome: str, started: float) -> None:
    elapsed_s = time.monotonic() - started
    metrics.daraja_request_seconds.labels(operation, outcome).observe(elapsed_s)

"""Safaricom's Daraja API: OAuth, STK push for paybill and till, STK query.

Wire formats: Daraja 3.0 pages (December 2025). One call here is one HTTP request; what may be
repeated is decided in `usecases/`.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import requests

from mpesa_gateway import metrics, tracing
from mpesa_gateway.clients.deadline import exchange
from mpesa_gateway.clients.egress import read_at_most
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.push import PushOutcome, classify_push, not_sent, parse_answer, unknown
from mpesa_gateway.domain.query import QueryClass, QueryOutcome, classify_query
from mpesa_gateway.failpoint import step

# M-Pesa runs on East Africa Time, which has no daylight saving.
EAT = timezone(timedelta(hours=3), "EAT")
TOKEN_TIMEOUT_S = 5.0
# Too short makes payments unknown; the caller of /initiate waits this long at most.
PUSH_TIMEOUT_S = 15.0
QUERY_TIMEOUT_S = 8.0
ANSWER_LIMIT = 64 * 1024
DEFAULT_TOKEN_LIFE_S = 3599
LONGEST_TOKEN_LIFE_S = 86_400
# It goes into a header.
_TOKEN = re.compile(r"[!-~]{1,4096}")


def eat_timestamp(now: datetime) -> str:
    """`YYYYMMDDHHmmss` in East Africa Time."""
    return now.astimezone(EAT).strftime("%Y%m%d%H%M%S")


def stk_password(short_code: str, passkey: str, timestamp: str) -> str:
    """base64(short code + passkey + timestamp). Reversible: as secret as the passkey."""
    return base64.b64encode(f"{short_code}{passkey}{timestamp}".encode()).decode()


@dataclass(frozen=True)
class TokenAnswer:
    """OAuth's answer: a token and its life, or why there is none."""

    token: str | None = None
    expires_in_s: float = 0.0
    refused: bool = False
    message: str = ""


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
        with exchange(TOKEN_TIMEOUT_S), step("daraja.token"):
            try:
                response = self._session.get(
                    f"{base_url}/oauth/v1/generate?grant_type=client_credentials",
                    headers={"Authorization": f"Basic {basic}"},
                    timeout=TOKEN_TIMEOUT_S,
                    allow_redirects=False,
                    stream=True,
                )
                body = read_at_most(response, ANSWER_LIMIT)
            except (requests.RequestException, OSError) as error:
                return TokenAnswer(message=f"OAuth did not answer: {type(error).__name__}")
        return _read_token(response.status_code, body)

    def push(self, push: Push, token: str) -> PushOutcome:
        """Send an STK push, once. Never raises for what the network or Safaricom does."""
        merchant, timestamp = push.merchant, eat_timestamp(self._clock())
        body = {
            "BusinessShortCode": merchant.short_code,
            "Password": stk_password(merchant.short_code, merchant.credentials.passkey, timestamp),
            "Timestamp": timestamp,
            "TransactionType": merchant.transaction_type,
            "Amount": int(push.amount),
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
                status, answer = self._post(url, body, token, PUSH_TIMEOUT_S)
            except (requests.RequestException, OSError) as error:
                # What decides is not the kind of error but whether a byte of the request left.
                problem = type(error).__name__
                if current.sent:
                    return unknown(f"no answer after the request left: {problem}")
                return not_sent(f"no connection: {problem}")
        return classify_push(status, answer)

    def query(self, merchant: Merchant, checkout_request_id: str, token: str) -> QueryOutcome:
        """Ask how a push ended. Never raises for what the network or Safaricom does."""
        timestamp = eat_timestamp(self._clock())
        body: dict[str, object] = {
            "BusinessShortCode": merchant.short_code,
            "Password": stk_password(merchant.short_code, merchant.credentials.passkey, timestamp),
            "Timestamp": timestamp,
            "CheckoutRequestID": checkout_request_id,
        }
        url = f"{merchant.base_url}/mpesa/stkpushquery/v1/query"
        started = time.monotonic()
        with tracing.span("daraja query", kind="client") as span:
            outcome = self._query(url, body, token)
            span.set(outcome=outcome.kind.lower(), code=outcome.code)
        _observe("query", outcome.kind.lower(), started)
        return outcome

    def _query(self, url: str, body: dict[str, object], token: str) -> QueryOutcome:
        with exchange(QUERY_TIMEOUT_S), step("daraja.query"):
            try:
                status, answer = self._post(url, body, token, QUERY_TIMEOUT_S)
                return classify_query(status, answer)
            except (requests.RequestException, OSError) as error:
                problem = type(error).__name__
                return QueryOutcome(QueryClass.NO_INFORMATION, None, f"no answer: {problem}")

    def _post(
        self, url: str, body: dict[str, object], token: str, timeout_s: float
    ) -> tuple[int, bytes]:
        response = self._session.post(
            url,
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            allow_redirects=False,
            stream=True,
        )
        return response.status_code, read_at_most(response, ANSWER_LIMIT)


def _read_token(status: int, body: bytes) -> TokenAnswer:
    """`expires_in` comes as a number and as text. 400 and 401 refuse our credentials."""
    answer = parse_answer(body) or {}
    token = answer.get("access_token")
    if status == 200 and isinstance(token, str) and _TOKEN.fullmatch(token):
        return TokenAnswer(token, _read_life_s(answer.get("expires_in")))
    code = answer.get("errorCode")
    message = f"OAuth answered {status}" + (f" {code}" if isinstance(code, str) else "")
    return TokenAnswer(refused=status in (400, 401), message=message)


def _read_life_s(value: object) -> float:
    """The documented life where Safaricom's own words make no sense."""
    try:
        life_s = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return DEFAULT_TOKEN_LIFE_S
    return life_s if 0 < life_s <= LONGEST_TOKEN_LIFE_S else DEFAULT_TOKEN_LIFE_S


def _observe(operation: str, outcome: str, started: float) -> None:
    elapsed_s = time.monotonic() - started
    metrics.daraja_request_seconds.labels(operation, outcome).observe(elapsed_s)

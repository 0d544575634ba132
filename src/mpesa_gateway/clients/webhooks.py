"""POSTs one webhook and says how it went. Never raises for what the endpoint does."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import requests

from mpesa_gateway.clients.deadline import exchange
from mpesa_gateway.clients.egress import read_at_most
from mpesa_gateway.domain.delivery import Attempt, AttemptOutcome
from mpesa_gateway.errors import EgressRefusedError
from mpesa_gateway.failpoint import step

# From name look-up to the last byte of the reply.
DEADLINE_S = 10.0
REPLY_LIMIT = 16 * 1024


class WebhookClient:
    """Sends webhooks through a guarded session. `deadline_s` covers a whole try."""

    def __init__(self, session: requests.Session, *, deadline_s: float = DEADLINE_S) -> None:
        self._session = session
        self._deadline_s = deadline_s

    def post(self, url: str, body: bytes, headers: dict[str, str], now: datetime) -> Attempt:
        """One try. `now` is what a Retry-After date is compared with."""
        started = time.monotonic()
        with exchange(self._deadline_s), step("webhook.post"):
            try:
                response = self._session.post(
                    url,
                    data=body,
                    headers={**headers, "Content-Type": "application/json"},
                    timeout=self._deadline_s,
                    allow_redirects=False,
                    stream=True,
                )
                read_at_most(response, REPLY_LIMIT)
                attempt = _answered(response, now)
            except (requests.RequestException, OSError, EgressRefusedError, ValueError) as error:
                attempt = _failed(error, self._deadline_s)
        return replace(attempt, response_time_ms=round((time.monotonic() - started) * 1000))


def _answered(response: requests.Response, now: datetime) -> Attempt:
    status = response.status_code
    if 200 <= status < 300:
        return Attempt(AttemptOutcome.DELIVERED, status)
    reason = "redirect" if 300 <= status < 400 else f"http_{status // 100}xx"
    return Attempt(
        AttemptOutcome.FAILED,
        status,
        reason=reason,
        error_message=f"The endpoint answered {status}.",
        retry_after=_retry_after(response.headers.get("Retry-After"), now),
    )


def _retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Seconds or an HTTP date (RFC 9110), None when there is none that can be read."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return timedelta(seconds=int(value))
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(at - now, timedelta(0))


def _failed(error: Exception, deadline_s: float) -> Attempt:
    """The attempt of an exchange that never got an answer. The cause is what urllib3 wrapped."""
    causes = list(_chain(error))
    refused = next((e for e in causes if isinstance(e, EgressRefusedError)), None)
    if refused is not None:
        return Attempt(
            AttemptOutcome.REFUSED,
            reason="refused_by_guard",
            error_message=f"Not sent: {refused}.",
        )
    reason, sentence = _reason(causes, deadline_s)
    return Attempt(AttemptOutcome.FAILED, reason=reason, error_message=sentence)


def _reason(causes: list[BaseException], deadline_s: float) -> tuple[str, str]:
    names = {type(error).__name__ for error in causes}
    if any(isinstance(error, TimeoutError) for error in causes) or "ReadTimeout" in names:
        return "timeout", f"The endpoint did not answer within {deadline_s:g} s."
    if names & {"SSLError", "SSLCertVerificationError", "CertificateError"}:
        return "tls", "The endpoint's TLS certificate or protocol is not acceptable."
    if "gaierror" in names:
        return "dns", "The endpoint's host name has no address."
    if "ConnectionRefusedError" in names:
        return "connection_refused", "The endpoint refused the connection."
    return "connection", f"The connection to the endpoint failed ({type(causes[0]).__name__})."


def _chain(error: BaseException) -> list[BaseException]:
    """The error, its causes, and what urllib3 and requests keep in their arguments."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting and len(found) < 20:
        current = waiting.pop(0)
        if current is None or current in found:
            continue
        found.append(current)
        inner = (*current.args, getattr(current, "reason", None))
        waiting += [e for e in inner if isinstance(e, BaseException)]
        waiting += [current.__cause__, current.__context__]
    return found

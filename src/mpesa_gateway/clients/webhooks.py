"""POSTs one webhook and says how it went. Never raises, whatever the endpoint answers."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import requests

from mpesa_gateway.clients.answers import Answer, read_answer
from mpesa_gateway.clients.deadline import exchange
from mpesa_gateway.domain.delivery import Attempt, AttemptOutcome, response_text
from mpesa_gateway.domain.endpoint import NO_ADDRESS
from mpesa_gateway.errors import EgressRefusedError
from mpesa_gateway.failpoint import step
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

# From name look-up to the last byte of the reply.
DEADLINE_S = 10.0
REPLY_LIMIT = 16 * 1024
# An HTTP date has 29 characters (RFC 9110 5.6.7), its obsolete forms 33 at most.
MAX_RETRY_AFTER_LENGTH = 64
# What urllib3 and http.client raise when the answer is no HTTP, or more of it than we take.
_PROTOCOL_ERRORS = {
    "AnswerTooLongError",
    "BadStatusLine",
    "HTTPException",
    "IncompleteRead",
    "InvalidHeader",
    "LineTooLong",
    "UnknownProtocol",
}


class WebhookClient:
    """Sends webhooks through a guarded session. `deadline_s` covers a whole try."""

    def __init__(self, session: requests.Session, *, deadline_s: float = DEADLINE_S) -> None:
        self._session = session
        self._deadline_s = deadline_s

    def post(self, url: str, body: bytes, headers: dict[str, str], now: datetime) -> Attempt:
        """One try. `now` is what a Retry-After date is compared with."""
        started = time.monotonic()
        with exchange(self._deadline_s, max_body_bytes=REPLY_LIMIT), step("webhook.post"):
            try:
                attempt = self._post(url, body, headers, now)
            except (requests.RequestException, OSError, EgressRefusedError) as error:
                attempt = _failed(error, self._deadline_s)
            except Exception as error:
                # The last resort: whatever an endpoint provokes must not stop the worker.
                LOGGER.exception("webhook failed unexpectedly", problem=type(error).__name__)
                attempt = _failed(error, self._deadline_s)
        return replace(attempt, response_time_ms=round((time.monotonic() - started) * 1000))

    def _post(self, url: str, body: bytes, headers: dict[str, str], now: datetime) -> Attempt:
        response = self._session.post(
            url,
            data=body,
            headers={**headers, "Content-Type": "application/json"},
            timeout=self._deadline_s,
            allow_redirects=False,
            stream=True,
        )
        answer = read_answer(response, REPLY_LIMIT)
        if answer.is_success and answer.timed_out:
            # A failure stays what its status says; a success has a last byte.
            assert answer.problem is not None
            return _failed(answer.problem, self._deadline_s)
        return _answered(answer, now)


def _answered(answer: Answer, now: datetime) -> Attempt:
    """The attempt of an exchange whose status was read; the body decides nothing."""
    if answer.is_success:
        text = response_text(answer.body)
        return Attempt(AttemptOutcome.DELIVERED, answer.status, response_body=text)
    is_redirect = 300 <= answer.status < 400
    reason = "redirect" if is_redirect else f"http_{answer.status // 100}xx"
    what = f"{answer.status} redirect" if is_redirect else f"{answer.status}"
    return Attempt(
        AttemptOutcome.FAILED,
        answer.status,
        reason=reason,
        error_message=f"The endpoint answered {what}.",
        retry_after=_retry_after(answer.headers.get("Retry-After"), now),
        response_body=response_text(answer.body),
    )


def _retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Seconds or an HTTP date (RFC 9110), None when there is none that can be read."""
    if value is None or not value.isascii() or len(value) > MAX_RETRY_AFTER_LENGTH:
        return None
    if value.isdigit() and len(value) <= 9:
        return timedelta(seconds=int(value))
    try:
        at = parsedate_to_datetime(value)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return max(at - now, timedelta(0))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


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
    if any(type(error).__name__ == "gaierror" for error in causes):
        message = f"Not sent: {NO_ADDRESS}."
        return Attempt(AttemptOutcome.REFUSED, reason="dns", error_message=message)
    reason, sentence = _reason(causes, deadline_s)
    return Attempt(AttemptOutcome.FAILED, reason=reason, error_message=sentence)


def _reason(causes: list[BaseException], deadline_s: float) -> tuple[str, str]:
    names = {type(error).__name__ for error in causes}
    if any(isinstance(error, TimeoutError) for error in causes) or "ReadTimeout" in names:
        return "timeout", f"The endpoint did not answer within {deadline_s:g} s."
    if names & {"SSLError", "SSLCertVerificationError", "CertificateError"}:
        return "tls", "The endpoint's TLS certificate or protocol is not acceptable."
    if names & _PROTOCOL_ERRORS:
        return "protocol", "The endpoint's answer is not HTTP, or has too long a head."
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

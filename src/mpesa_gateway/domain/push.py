"""What an STK push's answer means: accepted, refused, certainly not sent, or unknown.

There is no idempotency key at Safaricom, so the classes decide about money: only what is certainly
not sent may be tried again, and whatever is not on a list here is UNKNOWN and never sent again.
Sources: the error tables of the Daraja 3.0 pages (December 2025), sandbox measurements of 2026 and
bodies pasted in public issues.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any


class PushClass(StrEnum):
    """What may have happened to a push."""

    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    NOT_SENT = "NOT_SENT"
    TOKEN_REJECTED = "TOKEN_REJECTED"  # noqa: S105 - a class of answers
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class PushOutcome:
    """A classified answer. `code` and `message` are Safaricom's, `reason` our stable word."""

    kind: PushClass
    reason: str = ""
    code: str | None = None
    message: str | None = None
    checkout_request_id: str | None = None
    merchant_request_id: str | None = None
    retry_after_s: int | None = None
    # The token of this push is dead: another must be fetched, whatever became of the push.
    token_refused: bool = False

    @property
    def throttled(self) -> bool:
        """Whether Safaricom said that there are too many calls, or that it is busy."""
        return self.kind is PushClass.NOT_SENT and self.code in THROTTLED_CODES


BUSY_RETRY_S = 30
# Safaricom says to wait at least 60 s after "Unable to lock subscriber".
LOCKED_RETRY_S = 60
QUOTA_RETRY_S = 300
MAX_ID_LENGTH = 128
MAX_MESSAGE_LENGTH = 300

TOKEN_CODES = frozenset({"400.003.01", "401.002.01", "404.001.03"})
# What Safaricom's API gateway, Apigee, says of tokens in an envelope of its own (public issues).
TOKEN_FAULTS = frozenset(
    {
        "keymanagement.service.invalid_access_token",
        "keymanagement.service.access_token_expired",
    }
)
INVALID_TOKEN_TEXT = "invalid access token"  # noqa: S105 - a sentence of an error
# Shared by two refusals: only the first text is about the token.
# Of an access token or of a product: only the text tells which.
ACCESS_REFUSED_CODE = "401.003.01"
REFUSED_CODES = frozenset(
    {
        "400.002.02",
        "400.002.05",
        "400.003.02",
        "400.008.01",
        "400.008.02",
        "404.001.01",
        "404.001.04",
        "404.002.01",
        "404.003.01",
        "405.001",
    }
)
NOT_SENT_CODES = {"500.003.02": BUSY_RETRY_S, "500.003.03": QUOTA_RETRY_S}
SHARED_CODE = "500.001.1001"
MERCHANT_TEXTS = ("merchant does not exist", "wrong credentials")
LOCKED_TEXT = "unable to lock subscriber"
FAULT_RETRY_S = {
    "policies.ratelimit.SpikeArrestViolation": BUSY_RETRY_S,
    "policies.ratelimit.QuotaViolation": QUOTA_RETRY_S,
}


THROTTLED_CODES = frozenset({"429", *NOT_SENT_CODES, *FAULT_RETRY_S})


def parse_answer(body: bytes) -> dict[str, Any] | None:
    """The JSON object of an answer, or None when it is anything else."""
    try:
        parsed = json.loads(body, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        # A number whose exponent no Decimal holds is an ArithmeticError.
        return None
    return parsed if isinstance(parsed, dict) else None


def classify_push(status: int, body: bytes) -> PushOutcome:
    """The class of an answered push. The body decides first, the HTTP status second."""
    answer = parse_answer(body) or {}
    checkout_request_id = _identifier(answer.get("CheckoutRequestID"))
    if checkout_request_id is not None:
        return _with_id(answer, checkout_request_id)
    documented = _documented_error(answer)
    if documented is not None:
        return documented
    if 200 <= status < 300 and _says_no(answer):
        code, message = text_of(answer["ResponseCode"]), text_of(answer.get("ResponseDescription"))
        return PushOutcome(PushClass.REFUSED, "refused", code, message)
    if status == 429:
        return PushOutcome(PushClass.NOT_SENT, "not_sent", "429", None, retry_after_s=BUSY_RETRY_S)
    code, message = error_of(answer)
    # The API gateway's words about a token are on no list of what was certainly not sent.
    token_refused = is_token_refusal(code, message)
    shown = text_of(answer.get("errorCode")) or str(status)
    return PushOutcome(PushClass.UNKNOWN, "unknown", shown, message, token_refused=token_refused)


def _with_id(answer: dict[str, Any], checkout_request_id: str) -> PushOutcome:
    """An answer that names a payment is never a refusal: accepted, or unknown and to be asked."""
    accepted = str(answer.get("ResponseCode")) == "0" and "errorCode" not in answer
    return PushOutcome(
        PushClass.ACCEPTED if accepted else PushClass.UNKNOWN,
        "" if accepted else "unknown",
        text_of(answer.get("ResponseCode")),
        text_of(answer.get("ResponseDescription")),
        checkout_request_id=checkout_request_id,
        merchant_request_id=_identifier(answer.get("MerchantRequestID")),
    )


def _says_no(answer: dict[str, Any]) -> bool:
    """Whether ResponseCode refuses, and no id hints at a payment that exists all the same.

    Zero in other clothes (`0.0`, `" 00"`) refuses nothing, and neither does an empty code.
    """
    code = answer.get("ResponseCode")
    text = "" if isinstance(code, bool) else text_of(code) or ""
    return text.strip().strip("0.") != "" and not answer.get("CheckoutRequestID")


def _documented_error(answer: dict[str, Any]) -> PushOutcome | None:
    """The outcome of a documented errorCode or gateway fault, whatever the HTTP status."""
    code = text_of(answer.get("errorCode"))
    if code is None:
        return _gateway_fault(answer)
    message = text_of(answer.get("errorMessage")) or ""
    lowered = message.lower()
    kind, reason, retry_after_s = PushClass.UNKNOWN, "unknown", None
    if code in TOKEN_CODES or (code == ACCESS_REFUSED_CODE and INVALID_TOKEN_TEXT in lowered):
        kind, reason = PushClass.TOKEN_REJECTED, "credentials_refused"
    elif code == ACCESS_REFUSED_CODE:
        kind, reason = PushClass.REFUSED, "refused_merchant"
    elif code in REFUSED_CODES:
        kind, reason = PushClass.REFUSED, "refused"
    elif code in NOT_SENT_CODES:
        kind, reason, retry_after_s = PushClass.NOT_SENT, "not_sent", NOT_SENT_CODES[code]
    elif code == SHARED_CODE and any(text in lowered for text in MERCHANT_TEXTS):
        kind, reason = PushClass.REFUSED, "refused_merchant"
    elif code == SHARED_CODE and LOCKED_TEXT in lowered:
        kind, reason, retry_after_s = PushClass.NOT_SENT, "not_sent", LOCKED_RETRY_S
    else:
        return None
    token_refused = kind is PushClass.TOKEN_REJECTED
    return PushOutcome(
        kind, reason, code, message, retry_after_s=retry_after_s, token_refused=token_refused
    )


def error_of(answer: dict[str, Any]) -> tuple[str | None, str | None]:
    """Code and sentence of a refusal, in Daraja's form or in its API gateway's."""
    code, message = text_of(answer.get("errorCode")), text_of(answer.get("errorMessage"))
    fault_code, fault_text = fault_of(answer)
    return code or fault_code, message if message is not None else fault_text


def is_token_refusal(code: str | None, message: str | None) -> bool:
    """Whether a refusal is about the access token. The same words mean it on every path."""
    return (
        code in TOKEN_CODES or code in TOKEN_FAULTS or INVALID_TOKEN_TEXT in (message or "").lower()
    )


def _gateway_fault(answer: dict[str, Any]) -> PushOutcome | None:
    """Safaricom's API gateway throttles with an envelope of its own (measured, HTTP 429)."""
    code, message = fault_of(answer)
    if code not in FAULT_RETRY_S:
        return None
    retry_after_s = FAULT_RETRY_S[code]
    return PushOutcome(PushClass.NOT_SENT, "not_sent", code, message, retry_after_s=retry_after_s)


def fault_of(answer: dict[str, Any]) -> tuple[str | None, str | None]:
    """Code and text of the API gateway's own envelope, None where there is none."""
    fault = answer.get("fault")
    if not isinstance(fault, dict):
        return None, None
    detail = fault.get("detail")
    code = text_of(detail.get("errorcode")) if isinstance(detail, dict) else None
    return code, text_of(fault.get("faultstring"))


def text_of(value: object) -> str | None:
    """A scalar as text of bounded length, or None when there is none."""
    if value is None or isinstance(value, dict | list):
        return None
    # Neither NUL nor half a surrogate pair can be stored; both can stand in JSON.
    text = str(value)[:MAX_MESSAGE_LENGTH].replace("\x00", "")
    return text.encode("utf-8", "replace").decode()


def _identifier(value: object) -> str | None:
    """Safaricom's opaque handles: text, not empty, bounded."""
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable():
        return value
    return None


def credentials_refused(code: str | None, message: str | None) -> PushOutcome:
    """OAuth refused our credentials, or a fresh token was refused again: nothing was sent."""
    return PushOutcome(PushClass.REFUSED, "credentials_refused", code, message)


def not_sent(message: str, *, retry_after_s: int = BUSY_RETRY_S) -> PushOutcome:
    """The request certainly never left."""
    return PushOutcome(PushClass.NOT_SENT, "not_sent", None, message, retry_after_s=retry_after_s)


def unknown(message: str) -> PushOutcome:
    """The request may have arrived: a time-out or a reset after it left."""
    return PushOutcome(PushClass.UNKNOWN, "unknown", None, message)

"""What an STK query's answer means, and when a failure it reports is believed.

Success is believed. Failure is provisional: Safaricom's sandbox has said "failed" of payments whose
callback said "paid" (public issues, March 2026), so it takes two equal answers with a wait between.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mpesa_gateway.domain.push import (
    FAULT_RETRY_S,
    LOCKED_TEXT,
    TOKEN_CODES,
    fault_of,
    parse_answer,
    text_of,
)
from mpesa_gateway.domain.results import meaning_of


class QueryClass(StrEnum):
    """What a query told."""

    PAID = "PAID"
    FAILED = "FAILED"
    IN_FLIGHT = "IN_FLIGHT"
    NO_INFORMATION = "NO_INFORMATION"
    SLOW_DOWN = "SLOW_DOWN"
    TOKEN_REJECTED = "TOKEN_REJECTED"  # noqa: S105 - a class of answers


@dataclass(frozen=True)
class QueryOutcome:
    """A classified answer; `code` and `message` are Safaricom's."""

    kind: QueryClass
    code: str | None = None
    message: str | None = None


SLOW_DOWN_CODES = frozenset({"500.003.02", "500.003.03", *FAULT_RETRY_S})
# The API gateway's envelope for tokens: its product's standard words, seen in no log so far.
TOKEN_FAULTS = frozenset(
    {
        "keymanagement.service.invalid_access_token",
        "keymanagement.service.access_token_expired",
    }
)
INVALID_TOKEN_TEXT = "invalid access token"  # noqa: S105 - a sentence of an error
IN_FLIGHT_CODE = "4999"


def classify_query(status: int, body: bytes) -> QueryOutcome:
    """The class of an answered query. The body decides first, the HTTP status second."""
    answer = parse_answer(body) or {}
    result_code = text_of(answer.get("ResultCode"))
    if result_code is not None and "errorCode" not in answer:
        return _result(result_code, text_of(answer.get("ResultDesc")))
    code, message = text_of(answer.get("errorCode")), text_of(answer.get("errorMessage"))
    if code is None:
        code, message = fault_of(answer)
    return _error(status, code, message or "")


def _error(status: int, code: str | None, message: str) -> QueryOutcome:
    lowered = message.lower()
    if code in SLOW_DOWN_CODES or status == 429:
        return QueryOutcome(QueryClass.SLOW_DOWN, code or str(status), message)
    # An extra token costs nothing here, so the sentence alone is enough.
    if code in TOKEN_CODES or code in TOKEN_FAULTS or INVALID_TOKEN_TEXT in lowered:
        return QueryOutcome(QueryClass.TOKEN_REJECTED, code, message)
    if "is being processed" in lowered or LOCKED_TEXT in lowered:
        return QueryOutcome(QueryClass.IN_FLIGHT, code, message)
    return QueryOutcome(QueryClass.NO_INFORMATION, code or str(status), message)


def _result(code: str, message: str | None) -> QueryOutcome:
    meaning = meaning_of(code)
    if code == "0":
        return QueryOutcome(QueryClass.PAID, code, message)
    if code == IN_FLIGHT_CODE:
        return QueryOutcome(QueryClass.IN_FLIGHT, code, message)
    kind = QueryClass.FAILED if meaning.final_in_query else QueryClass.NO_INFORMATION
    return QueryOutcome(kind, code, message)


@dataclass(frozen=True)
class QueryVerdict:
    """What to do after a query: end the transaction, or remember and ask again."""

    complete: bool = False
    fail: bool = False
    provisional_code: str | None = None


def judge_query(outcome: QueryOutcome, provisional_code: str | None) -> QueryVerdict:
    """Weigh an answer against the last failure seen.

    "Still processing" takes a provisional failure back; an answer without information leaves it.
    """
    if outcome.kind is QueryClass.PAID:
        return QueryVerdict(complete=True)
    if outcome.kind is QueryClass.FAILED:
        believed = outcome.code == provisional_code
        return QueryVerdict(fail=believed, provisional_code=outcome.code)
    if outcome.kind is QueryClass.IN_FLIGHT:
        return QueryVerdict()
    return QueryVerdict(provisional_code=provisional_code)

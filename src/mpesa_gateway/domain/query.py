"""What an STK query's answer means, and when it is believed.

Success is believed once the prompt's life is over; an earlier one is asked for again then. Failure
is provisional: Safaricom's sandbox has said "failed" of payments whose callback said "paid" (public
issues, March 2026), so it takes two equal answers with a wait between, or one that agrees with a
callback. An answer that names another payment is no answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from mpesa_gateway.domain.push import (
    FAULT_RETRY_S,
    LOCKED_TEXT,
    error_of,
    is_token_refusal,
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
    OTHER_PAYMENT = "OTHER_PAYMENT"


@dataclass(frozen=True)
class QueryOutcome:
    """A classified answer; `code` and `message` are Safaricom's.

    `is_result`: the code is a ResultCode. `is_answer`: Daraja itself answered, with a result or a
    documented error, and not a proxy, a firewall or nobody.
    """

    kind: QueryClass
    code: str | None = None
    message: str | None = None
    is_result: bool = field(default=False, compare=False)
    is_answer: bool = field(default=False, compare=False)


SLOW_DOWN_CODES = frozenset({"500.003.02", "500.003.03", *FAULT_RETRY_S})
IN_FLIGHT_CODE = "4999"
PAID_CODE = "0"


@dataclass(frozen=True)
class Asked:
    """The payment that a query asks about, by the ids that Safaricom gave it."""

    checkout_request_id: str
    merchant_request_id: str | None = None


def classify_query(status: int, body: bytes, asked: Asked | None = None) -> QueryOutcome:
    """The class of an answered query. The body decides first, the HTTP status second.

    `asked` is the payment that the query named: an answer about another one is OTHER_PAYMENT.
    """
    answer = parse_answer(body) or {}
    if asked is not None and not _speaks_of(answer, asked):
        return QueryOutcome(QueryClass.OTHER_PAYMENT, text_of(answer.get("ResultCode")))
    result_code = text_of(answer.get("ResultCode"))
    if result_code is not None and "errorCode" not in answer:
        return _result(result_code, text_of(answer.get("ResultDesc")))
    code, message = error_of(answer)
    is_answer = answer.get("errorCode") is not None
    return replace(_error(status, code, message or ""), is_answer=is_answer)


def _speaks_of(answer: dict[str, Any], asked: Asked) -> bool:
    """Whether an answer is about the payment that was asked about, or names none.

    Safaricom repeats the ids of the request (official samples). The CheckoutRequestID decides,
    because it is what was asked with; the other id counts only where that one is missing.
    """
    named = answer.get("CheckoutRequestID")
    if named is not None:
        return isinstance(named, str) and named.strip() == asked.checkout_request_id
    merchants = answer.get("MerchantRequestID")
    if merchants is None or asked.merchant_request_id is None:
        return True
    return isinstance(merchants, str) and merchants.strip() == asked.merchant_request_id


def _error(status: int, code: str | None, message: str) -> QueryOutcome:
    lowered = message.lower()
    if code in SLOW_DOWN_CODES or status == 429:
        return QueryOutcome(QueryClass.SLOW_DOWN, code or str(status), message)
    if is_token_refusal(code, message):
        return QueryOutcome(QueryClass.TOKEN_REJECTED, code, message)
    if "is being processed" in lowered or LOCKED_TEXT in lowered:
        return QueryOutcome(QueryClass.IN_FLIGHT, code, message)
    return QueryOutcome(QueryClass.NO_INFORMATION, code or str(status), message)


def _result(code: str, message: str | None) -> QueryOutcome:
    meaning = meaning_of(code)
    kind = QueryClass.FAILED if meaning.final_in_query else QueryClass.NO_INFORMATION
    if code == PAID_CODE:
        kind = QueryClass.PAID
    elif code == IN_FLIGHT_CODE:
        kind = QueryClass.IN_FLIGHT
    return QueryOutcome(kind, code, message, is_result=True, is_answer=True)


@dataclass(frozen=True)
class Known:
    """What is known of a pending transaction when a query is answered.

    `provisional_code` is what an earlier query said and nobody has repeated yet. A held callback
    claims a payment (`is_claimed_paid`), or reports a failure that is not believed yet
    (`held_failure`); `silent_answers` counts Daraja's answers without information since then.
    `is_prompt_open`: the query was sent within the prompt's life.
    """

    provisional_code: str | None = None
    is_claimed_paid: bool = False
    held_failure: str | None = None
    silent_answers: int = 0
    is_prompt_open: bool = False


@dataclass(frozen=True)
class QueryVerdict:
    """What to do after a query: end the transaction, or remember and ask again.

    `believe_callback`: the failure that a held callback reports is final. `is_early`: ask again at
    the end of the prompt's life.
    """

    complete: bool = False
    fail: bool = False
    provisional_code: str | None = None
    believe_callback: bool = False
    is_early: bool = False


def judge_query(outcome: QueryOutcome, known: Known) -> QueryVerdict:
    """Weigh an answer against what was said before.

    "Still processing" takes a provisional word back; an answer without information leaves it.
    """
    if outcome.kind is QueryClass.PAID:
        # Two witnesses agree where a callback claims it too: then the prompt is over.
        if known.is_prompt_open and not known.is_claimed_paid:
            return QueryVerdict(provisional_code=PAID_CODE, is_early=True)
        return QueryVerdict(complete=True)
    if known.held_failure is not None and _confirms(outcome, known.held_failure, known):
        return QueryVerdict(believe_callback=True)
    if outcome.kind is QueryClass.FAILED:
        believed = outcome.code == known.provisional_code
        return QueryVerdict(fail=believed, provisional_code=outcome.code)
    if outcome.kind is QueryClass.IN_FLIGHT:
        return QueryVerdict()
    return QueryVerdict(provisional_code=known.provisional_code)


def _confirms(outcome: QueryOutcome, held_failure: str, known: Known) -> bool:
    """Whether a held failure is believed now: a query says the same, or has denied it nothing."""
    if outcome.is_result and outcome.code == held_failure:
        return True
    is_silent = outcome.kind is QueryClass.NO_INFORMATION and outcome.is_answer
    if not is_silent or known.provisional_code is not None:
        return False
    return known.silent_answers + 1 >= meaning_of(held_failure).queries_before_failed

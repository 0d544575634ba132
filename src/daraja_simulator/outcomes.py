"""What each phone does: a table from the last four digits to the fate of its payments."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PAID_CODE = "0"
# In no table of Safaricom's.
UNLISTED_CODE = "5000"


class PushAnswer(StrEnum):
    """How a push is answered; `replies.PUSH_REPLIES` has the bodies."""

    ACCEPTED = "accepted"
    HANG = "hang"
    CUT = "cut"
    INTERNAL_ERROR = "internal_error"
    WITHOUT_ID = "without_id"
    REFUSED = "refused"
    BUSY = "busy"
    SPIKE_ARREST = "spike_arrest"
    HTML_503 = "html_503"
    TOKEN_FAULT = "token_fault"  # noqa: S105 - an answer


# After these answers a prompt is on the phone, whatever the caller was told.
ACCEPTING = frozenset(
    {
        PushAnswer.ACCEPTED,
        PushAnswer.HANG,
        PushAnswer.CUT,
        PushAnswer.INTERNAL_ERROR,
        PushAnswer.WITHOUT_ID,
    }
)


class CallbackTime(StrEnum):
    """When the callback is posted."""

    PROMPT_ANSWERED = "prompt_answered"
    LATE = "late"
    BEFORE_PUSH_ANSWER = "before_push_answer"


class CallbackShape(StrEnum):
    """How the body of a success callback departs from the usual."""

    USUAL = "usual"
    NO_AMOUNT = "no_amount"
    NO_METADATA = "no_metadata"
    STRINGS = "strings"
    HASHED_PHONE = "hashed_phone"
    BALANCE_TEXT = "balance_text"


@dataclass(frozen=True)
class Outcome:
    """The fate of a payment.

    `result_code` is what really happened, as text. The callback says it too, unless there is a
    `callback_code`; the query says `query_code`, or nothing ever when it is None, and
    `open_query_code` while the prompt is open. `amount_error` is added to the amount in the
    callback, in shillings. A push that `ends_open_prompt` ends those before it on its phone.
    """

    digits: str
    name: str
    what: str
    result_code: str
    query_code: str | None
    push_answer: PushAnswer = PushAnswer.ACCEPTED
    callback_copies: int = 1
    callback_time: CallbackTime = CallbackTime.PROMPT_ANSWERED
    callback_shape: CallbackShape = CallbackShape.USUAL
    amount_error: int = 0
    callback_code: str | None = None
    open_query_code: str | None = None
    query_names_another: bool = False
    ends_open_prompt: bool = False

    @property
    def accepted(self) -> bool:
        """Whether a prompt appears on the phone."""
        return self.push_answer in ACCEPTING

    @property
    def code_in_callback(self) -> str:
        """The ResultCode of the callback, as text."""
        return self.result_code if self.callback_code is None else self.callback_code

    @property
    def charged(self) -> bool:
        """Whether the customer loses money."""
        return self.accepted and self.result_code == PAID_CODE


@dataclass(frozen=True)
class ResultText:
    """The prose of a result code, which differs between callback and query (measured) [M]."""

    callback: str
    query: str


RESULT_TEXTS: dict[str, ResultText] = {
    PAID_CODE: ResultText(
        "The service request is processed successfully.",
        "The service request is processed successfully.",
    ),
    "1": ResultText(
        "The balance is insufficient for the transaction.",
        "The balance is insufficient for the transaction.",
    ),
    "1032": ResultText("Request cancelled by user", "Request Cancelled by user."),
    "1037": ResultText("No response from user.", "DS timeout user cannot be reached."),
    "2001": ResultText(
        "The initiator information is invalid.", "The initiator information is invalid."
    ),
    "SFC_IC0003": ResultText("The operator does not exist.", "The operator does not exist."),
    UNLISTED_CODE: ResultText(
        "The transaction is still under processing", "The transaction is still under processing"
    ),
}


def _paid(
    digits: str,
    name: str,
    what: str,
    *,
    push_answer: PushAnswer = PushAnswer.ACCEPTED,
    copies: int = 1,
    time: CallbackTime = CallbackTime.PROMPT_ANSWERED,
    shape: CallbackShape = CallbackShape.USUAL,
) -> Outcome:
    """The customer pays, and the query says so."""
    return Outcome(
        digits,
        name,
        what,
        result_code=PAID_CODE,
        query_code=PAID_CODE,
        push_answer=push_answer,
        callback_copies=copies,
        callback_time=time,
        callback_shape=shape,
    )


def _failed(digits: str, name: str, what: str, *, code: str, copies: int = 1) -> Outcome:
    """The customer does not pay, and the query says so."""
    return Outcome(digits, name, what, result_code=code, query_code=code, callback_copies=copies)


def _not_accepted(digits: str, name: str, what: str, push_answer: PushAnswer) -> Outcome:
    """No prompt appears: there is no id to call back or to query with."""
    return Outcome(
        digits,
        name,
        what,
        result_code="1037",
        query_code=None,
        push_answer=push_answer,
        callback_copies=0,
    )


PAID = _paid("0000", "paid", "the customer pays; so do all digits that are not in this table")
BUSY = _not_accepted(
    "5002", "busy", "500.003.02 System is busy, nothing is charged", PushAnswer.BUSY
)

OUTCOMES: tuple[Outcome, ...] = (
    PAID,
    _failed("1032", "cancelled", "the customer cancels the prompt", code="1032"),
    _failed("0001", "insufficient_funds", "the balance is too low", code="1"),
    _failed("2001", "wrong_pin", "the customer enters a wrong PIN", code="2001"),
    _failed("1037", "no_answer", "nobody answers the prompt", code="1037"),
    _failed("0003", "string_code", "the result code is the text SFC_IC0003", code="SFC_IC0003"),
    _paid("4040", "no_callback_paid", "no callback, the query says paid", copies=0),
    _failed(
        "4041",
        "no_callback_cancelled",
        "no callback, the query says 1032",
        code="1032",
        copies=0,
    ),
    Outcome(
        "4042",
        "no_callback_unknown",
        "no callback, not charged, and the query never has any information",
        result_code="1037",
        query_code=None,
        callback_copies=0,
    ),
    _paid("2002", "callback_twice", "the callback comes twice, equal bytes at once", copies=2),
    _paid("2003", "callback_five_times", "the callback comes five times at once", copies=5),
    _paid(
        "3030",
        "callback_late",
        "paid, and the callback comes late_delay after that",
        time=CallbackTime.LATE,
    ),
    _paid(
        "3131",
        "callback_before_answer",
        "the callback is posted and answered before the push is",
        time=CallbackTime.BEFORE_PUSH_ANSWER,
    ),
    _paid(
        "5040",
        "connection_cut",
        "accepted and charged, but the push's connection is cut without an answer",
        push_answer=PushAnswer.CUT,
    ),
    _paid(
        "5041",
        "internal_error",
        "accepted and charged, but the push is answered 500.003.1001",
        push_answer=PushAnswer.INTERNAL_ERROR,
    ),
    _not_accepted("4000", "refused", "400.002.02, nothing is charged", PushAnswer.REFUSED),
    BUSY,
    _not_accepted("4290", "spike_arrest", "HTTP 429, nothing is charged", PushAnswer.SPIKE_ARREST),
    Outcome(
        "7001",
        "wrong_amount",
        "paid, and the callback says one shilling more than was paid",
        result_code=PAID_CODE,
        query_code=PAID_CODE,
        amount_error=1,
    ),
    Outcome(
        "7002",
        "query_contradicts",
        "paid, the query says 1032, and the late callback says paid",
        result_code=PAID_CODE,
        query_code="1032",
        callback_time=CallbackTime.LATE,
    ),
    _paid(
        "7003",
        "no_amount",
        "paid, and the callback has no Amount",
        shape=CallbackShape.NO_AMOUNT,
    ),
    _paid(
        "7004",
        "no_metadata",
        "paid, and the callback has no CallbackMetadata",
        shape=CallbackShape.NO_METADATA,
    ),
    _paid(
        "7005",
        "numbers_as_strings",
        "paid, and every number in the callback is a text",
        shape=CallbackShape.STRINGS,
    ),
    Outcome(
        "7006",
        "unlisted_code",
        "not paid, the callback has the unlisted code 5000 and no receipt, the query knows nothing",
        result_code=UNLISTED_CODE,
        query_code=None,
    ),
    Outcome(
        "7007",
        "unlisted_code_paid",
        "paid, and the callback has a receipt under the code 00000000",
        result_code=PAID_CODE,
        query_code=PAID_CODE,
        callback_code="00000000",
    ),
    Outcome(
        "7008",
        "query_names_another",
        "no callback, not charged, and the query says paid of another payment",
        result_code="1037",
        query_code=PAID_CODE,
        callback_copies=0,
        query_names_another=True,
    ),
    Outcome(
        "7009",
        "query_paid_while_open",
        "cancelled, and the query says paid while the prompt is open; the callback is late",
        result_code="1032",
        query_code="1032",
        callback_time=CallbackTime.LATE,
        open_query_code=PAID_CODE,
    ),
    _paid(
        "7010",
        "hashed_phone",
        "paid, and PhoneNumber in the callback is a SHA-256",
        shape=CallbackShape.HASHED_PHONE,
    ),
    _paid(
        "7011",
        "balance_text",
        "paid, and Balance in the callback is the text of a Java object",
        shape=CallbackShape.BALANCE_TEXT,
    ),
    Outcome(
        "7012",
        "ends_open_prompt",
        "paid; a second push to it ends the first, while that is open, as 1032",
        result_code=PAID_CODE,
        query_code=PAID_CODE,
        ends_open_prompt=True,
    ),
    _not_accepted(
        "4010",
        "token_fault",
        "HTTP 401 with the API gateway's fault Invalid Access Token, nothing is charged",
        PushAnswer.TOKEN_FAULT,
    ),
    _paid(
        "8001",
        "hang",
        "accepted and charged, but the push is answered only after hang_delay",
        push_answer=PushAnswer.HANG,
    ),
    _not_accepted(
        "8002", "html_503", "HTTP 503 with a page of HTML, nothing is charged", PushAnswer.HTML_503
    ),
    _paid(
        "8003",
        "without_id",
        "accepted and charged, but the answer 200 has no CheckoutRequestID",
        push_answer=PushAnswer.WITHOUT_ID,
    ),
)

BY_NAME: dict[str, Outcome] = {outcome.name: outcome for outcome in OUTCOMES}
_BY_DIGITS: dict[str, Outcome] = {outcome.digits: outcome for outcome in OUTCOMES}


def get_outcome(phone: str) -> Outcome:
    """The outcome of every payment by that phone."""
    return _BY_DIGITS.get(phone[-4:], PAID)

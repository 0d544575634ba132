"""The payments of the demo: one of every outcome of the simulator, and how each must end.

What must hold is the gateway's promise (`domain/settlement.py`, `domain/push.py`,
`domain/query.py`), worked out by hand and not copied from a run. How fast things happen is here
too, because some of the endings depend on the order of two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daraja_simulator.outcomes import BY_NAME, PAID, get_outcome

COMPLETED, FAILED, PENDING = "COMPLETED", "FAILED", "PENDING"
# A made-up number; its last four digits choose the outcome.
PHONE_PREFIX = "25471234"
OTHER_PHONE_PREFIX = "25472234"

# The customer takes this long. Short, so that every usual callback is in before the first query.
CALLBACK_DELAY_S = 0.6
# The gateway asks after a silent payment then, and believes a failure that it hears twice.
FIRST_QUERY_AFTER_S = 3.0
NEXT_QUERY_AFTER_S = 2.0
# Over before the first query, whose success would have to be repeated else.
PROMPT_LIFE_S = 2.0
# A late callback comes after two queries, which is what makes it contradict them.
LATE_DELAY_S = 10.0
# Longer than the gateway waits for an answer to its push (`clients/daraja.py`: 15 s), so that it
# really has to go on without one.
HANG_DELAY_S = 17.0
# All payments are at their end by then, or something is wrong.
DEADLINE_S = 40.0


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How a payment must end. `status` None: nothing may have been created.

    `receipt` says whether there must be one. `webhooks` are the types without `transaction.`, in
    order. `attention` says whether a person must have been asked for. `queries` is how often
    Safaricom must have been asked at least. `settled_by` and `next_step` None are not looked at.
    """

    status: str | None
    answer: int = 201
    push: str = "ACCEPTED"
    receipt: bool = False
    failure: tuple[str, str] | None = None
    webhooks: tuple[str, ...] = ()
    attention: bool = False
    next_step: str | None = None
    settled_by: str | None = None
    conflict: str | None = None
    quarantined: tuple[str, ...] = ()
    queries: int = 0
    bad_fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One payment. `clients` send the same request at once; `fields` replace those of the request.

    `story` says what the gateway did when it ended as expected.
    """

    name: str
    phone: str
    amount: int
    story: str
    expected: Expected
    clients: int = 1
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def charged(self) -> bool:
        """Whether the customer loses money: known to the simulator, not to the gateway."""
        return self.expected.status is not None and get_outcome(self.phone).charged


def _completed(*, receipt: bool = True, settled_by: str = "callback", **more: Any) -> Expected:
    values: dict[str, Any] = {"webhooks": ("completed",), **more}
    return Expected(status=COMPLETED, receipt=receipt, settled_by=settled_by, **values)


def _failed(code: str, reason: str, *, settled_by: str = "callback", **more: Any) -> Expected:
    values: dict[str, Any] = {"webhooks": ("failed",), **more}
    return Expected(status=FAILED, failure=(code, reason), settled_by=settled_by, **values)


def _refused(answer: int, push: str, code: str, reason: str) -> Expected:
    return _failed(code, reason, settled_by="push", answer=answer, push=push)


# Outcome of the simulator -> how it must end, and why.
ENDINGS: Mapping[str, tuple[Expected, str]] = {
    "paid": (_completed(), "The customer paid; the callback settled it."),
    "cancelled": (_failed("1032", "cancelled"), "The customer cancelled."),
    "insufficient_funds": (
        _failed("1", "insufficient_funds"),
        "The balance was too low.",
    ),
    "wrong_pin": (_failed("2001", "wrong_pin"), "The PIN was wrong."),
    "no_answer": (_failed("1037", "no_answer"), "Nobody answered the phone."),
    "string_code": (
        _failed("SFC_IC0003", "merchant_unknown"),
        "A result code that is a text was understood.",
    ),
    "no_callback_paid": (
        _completed(receipt=False, settled_by="query", queries=1),
        "No callback came: the gateway asked, and it was paid. A query tells no receipt.",
    ),
    "no_callback_cancelled": (
        _failed("1032", "cancelled", settled_by="query", queries=2),
        "No callback came: the gateway asked, and believed the failure when it heard it twice.",
    ),
    "no_callback_unknown": (
        Expected(status=PENDING, next_step="query", queries=2),
        "Nobody knows how it ended: the gateway goes on asking, and invents nothing.",
    ),
    "callback_twice": (_completed(), "The callback came twice, and counted once."),
    "callback_five_times": (_completed(), "The callback came five times, and counted once."),
    "callback_late": (
        _completed(settled_by="query", webhooks=("completed", "updated"), queries=1),
        "A query settled it; the late callback added the receipt, and the merchant was told.",
    ),
    "callback_before_answer": (
        _completed(),
        "The callback overtook the answer to the push.",
    ),
    "connection_cut": (
        _completed(push="UNKNOWN"),
        "The push's answer was lost. Not sent again: the callback's own token settled it.",
    ),
    "internal_error": (
        _completed(push="UNKNOWN"),
        "Safaricom said 500, and charged. Not sent again: the callback's token settled it.",
    ),
    "refused": (
        _refused(502, "REFUSED", "400.002.02", "refused"),
        "Safaricom refused the request; nothing was charged.",
    ),
    "busy": (
        _refused(503, "NOT_SENT", "500.003.02", "not_sent"),
        "Safaricom was busy: nothing was sent, and the caller may try again.",
    ),
    "spike_arrest": (
        _refused(503, "NOT_SENT", "policies.ratelimit.SpikeArrestViolation", "not_sent"),
        "Safaricom throttled: nothing was sent, and the caller may try again.",
    ),
    "wrong_amount": (
        Expected(
            status=PENDING, attention=True, next_step="person", quarantined=("amount_mismatch",)
        ),
        "The callback named another amount: kept in quarantine, a person decides.",
    ),
    "query_contradicts": (
        _failed(
            "1032",
            "cancelled",
            settled_by="query",
            webhooks=("failed", "conflict"),
            conflict="paid_after_failed",
            queries=2,
        ),
        "Asked twice, Safaricom said cancelled; then a callback said paid. The merchant was told.",
    ),
    "no_amount": (
        _completed(settled_by="query", queries=1),
        "The callback proved no amount, so the gateway asked before it believed it.",
    ),
    "no_metadata": (
        _completed(receipt=False, settled_by="query", queries=1),
        "The callback proved nothing, so the gateway asked before it believed it.",
    ),
    "numbers_as_strings": (_completed(), "Numbers written as text were understood."),
    "unlisted_code": (
        _failed("5000", "unrecognised", queries=2),
        "A code that nobody lists: believed when two queries knew nothing else.",
    ),
    "unlisted_code_paid": (
        _completed(settled_by="query", queries=1),
        "A receipt under the code 00000000 contradicts itself, so the gateway asked.",
    ),
    "query_names_another": (
        Expected(status=PENDING, next_step="query", queries=2),
        "The query said paid, of another payment: no information, and nothing is invented.",
    ),
    "query_paid_while_open": (
        _failed("1032", "cancelled", settled_by="query", queries=2),
        "Cancelled; a query that says paid while the prompt is open is not believed.",
    ),
    "hashed_phone": (_completed(), "A phone that came as a SHA-256 was taken as it is."),
    "balance_text": (_completed(), "A balance that is the text of a Java object was passed over."),
    "ends_open_prompt": (_completed(), "Nothing else was open on this phone: paid."),
    "token_fault": (
        Expected(status=PENDING, push="UNKNOWN"),
        "The API gateway refused the token: the next push gets a fresh one, this one is unknown.",
    ),
    "hang": (
        _completed(push="UNKNOWN"),
        "The push was not answered within 15 s. Not sent again: the callback's token settled it.",
    ),
    "html_503": (
        Expected(status=PENDING, push="UNKNOWN"),
        "A page of HTML says nothing about the payment: pending until the truth is known.",
    ),
    "without_id": (
        _completed(push="UNKNOWN"),
        "The answer had no id; the callback's own token settled it.",
    ),
}

SAME_KEY = Scenario(
    name="same key, 5 clients",
    phone=OTHER_PHONE_PREFIX + PAID.digits,
    amount=990,
    clients=5,
    story="Five requests with one idempotency key at once: one prompt, one debit, one answer.",
    expected=_completed(),
)
BAD_REQUEST = Scenario(
    name="bad request",
    phone="0712345678",
    amount=10,
    story="400 names every bad field at once; nothing was created.",
    fields={"amount": "10.50", "idempotency_key": "not-a-uuid"},
    expected=Expected(status=None, answer=400, bad_fields=("amount", "idempotency_key", "phone")),
)


def _scenarios() -> tuple[Scenario, ...]:
    """Different amounts, so that a mix-up of two payments shows."""
    of_outcomes = [
        Scenario(
            name=name,
            phone=PHONE_PREFIX + BY_NAME[name].digits,
            amount=100 + 30 * number,
            story=story,
            expected=expected,
        )
        for number, (name, (expected, story)) in enumerate(ENDINGS.items())
    ]
    return (*of_outcomes, SAME_KEY, BAD_REQUEST)


SCENARIOS = _scenarios()

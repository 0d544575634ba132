"""What a callback does to its transaction: one pure decision for every pair of the two."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mpesa_gateway.domain.callback import StkCallback
from mpesa_gateway.domain.results import meaning_of
from mpesa_gateway.domain.transaction import Ending, Status, Transaction


class Verdict(StrEnum):
    """What to do with a callback. The value is also the callback's recorded outcome."""

    COMPLETE = "completed"
    FAIL = "failed"
    CONFIRM = "confirming"
    UNCONFIRMED = "unconfirmed"
    FILL_IN = "filled_in"
    CONFLICT = "conflict"
    DUPLICATE = "duplicate"
    MISMATCH = "checkout_request_id_mismatch"
    WRONG_AMOUNT = "amount_mismatch"
    NOT_FINAL = "not_final"


class ConflictKind(StrEnum):
    """How a callback contradicts a final state."""

    PAID_AFTER_FAILED = "paid_after_failed"
    SECOND_RECEIPT = "second_receipt"
    FAILED_AFTER_COMPLETED = "failed_after_completed"


QUARANTINED = frozenset({Verdict.MISMATCH, Verdict.WRONG_AMOUNT, Verdict.NOT_FINAL})
# A query decides: CONFIRM holds what claims a payment, UNCONFIRMED a failure that may be none.
HELD = frozenset({Verdict.CONFIRM, Verdict.UNCONFIRMED})


@dataclass(frozen=True)
class Settlement:
    """A verdict, and the ending where the verdict is one.

    `conflict` names what contradicts; the merchant is told of each.
    """

    verdict: Verdict
    ending: Ending | None = None
    conflict: ConflictKind | None = None


def settle(transaction: Transaction, callback: StkCallback) -> Settlement:
    """Weigh a callback against its transaction. Nothing is changed here."""
    known_id = transaction.checkout_request_id
    if known_id is not None and known_id != callback.checkout_request_id:
        return Settlement(Verdict.MISMATCH)
    if callback.claims_payment:
        return _claims_payment(transaction, callback)
    return _not_paid(transaction, callback)


def _claims_payment(transaction: Transaction, callback: StkCallback) -> Settlement:
    """A success, or a body that contradicts itself: its receipt says paid, its code does not."""
    if callback.amount is not None and callback.amount != transaction.amount:
        return Settlement(Verdict.WRONG_AMOUNT)
    if transaction.status is Status.FAILED:
        return Settlement(Verdict.CONFLICT, conflict=ConflictKind.PAID_AFTER_FAILED)
    if transaction.status is Status.COMPLETED:
        return _claims_payment_again(transaction, callback)
    if callback.paid and callback.amount is not None and callback.receipt is not None:
        return Settlement(Verdict.COMPLETE, completed(callback, settled_by="callback"))
    return Settlement(Verdict.CONFIRM)


def _claims_payment_again(transaction: Transaction, callback: StkCallback) -> Settlement:
    """For a completed transaction: a copy, the missing receipt, a second debit, or a denial."""
    if callback.receipt is not None and callback.receipt != transaction.receipt:
        if transaction.receipt is None:
            return Settlement(Verdict.FILL_IN, completed(callback, settled_by="callback"))
        return Settlement(Verdict.CONFLICT, conflict=ConflictKind.SECOND_RECEIPT)
    if _is_failure(callback):
        return Settlement(Verdict.CONFLICT, conflict=ConflictKind.FAILED_AFTER_COMPLETED)
    return Settlement(Verdict.DUPLICATE)


def _is_failure(callback: StkCallback) -> bool:
    """Whether its code, alone, is one that says that the payment failed."""
    meaning = meaning_of(callback.result_code)
    return meaning.recognised and meaning.final_in_callback and not callback.paid


def _not_paid(transaction: Transaction, callback: StkCallback) -> Settlement:
    meaning = meaning_of(callback.result_code)
    if not meaning.final_in_callback:
        return Settlement(Verdict.NOT_FINAL)
    if transaction.status is Status.COMPLETED:
        return Settlement(Verdict.CONFLICT, conflict=ConflictKind.FAILED_AFTER_COMPLETED)
    if transaction.status is Status.FAILED:
        return Settlement(Verdict.DUPLICATE)
    if meaning.queries_before_failed:
        return Settlement(Verdict.UNCONFIRMED)
    ending = failed(callback.result_code, callback.result_desc, settled_by="callback")
    return Settlement(Verdict.FAIL, ending)


def completed(callback: StkCallback | None, *, settled_by: str) -> Ending:
    """The ending of a paid transaction; without a callback neither receipt nor metadata exist."""
    if callback is None:
        return Ending(Status.COMPLETED, settled_by, result_code="0")
    return Ending(
        Status.COMPLETED,
        settled_by,
        result_code="0",
        result_desc=callback.result_desc,
        receipt=callback.receipt,
        metadata=callback.metadata(),
    )


def failed(code: str, description: str | None, *, settled_by: str) -> Ending:
    """The ending of a transaction that Safaricom reports as failed."""
    return Ending(
        Status.FAILED,
        settled_by,
        result_code=code,
        result_desc=description,
        failure_reason=meaning_of(code).reason,
    )

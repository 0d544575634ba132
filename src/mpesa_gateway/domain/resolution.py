"""What a person may do with a payment that asks for one: end it, note it, close its conflicts.

A final state never moves. What is pending may be ended only while it asks for a person, and paid
only with a receipt number: a person reads the M-PESA statement, nobody guesses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpesa_gateway.domain.results import RESOLVED_FAILED
from mpesa_gateway.domain.transaction import (
    FINAL,
    Ending,
    PushState,
    Status,
    Transaction,
    next_step,
)
from mpesa_gateway.errors import ResolutionRefusedError

LONGEST_NAME = 100
LONGEST_REASON = 1000
_RECEIPT = re.compile(r"[A-Z0-9]{6,32}", re.ASCII)
# A push that never left cannot have been paid; the database says so too.
_NEVER_LEFT = (PushState.INTENT, PushState.NOT_SENT, PushState.REFUSED)


@dataclass(frozen=True)
class Resolution:
    """An operator's word: who, why, and how it ended. `status` None: it stays as it is.

    A receipt without a status is what the statement says of a payment that has ended.
    """

    by: str
    reason: str
    status: Status | None = None
    receipt: str | None = None


def parse_resolution(
    by: str, reason: str, status: Status | None, receipt: str | None
) -> Resolution:
    """A checked resolution. Raises ResolutionRefusedError."""
    by, reason = by.strip(), reason.strip()
    if not 1 <= len(by) <= LONGEST_NAME:
        raise ResolutionRefusedError(f"a name of 1 to {LONGEST_NAME} characters is needed")
    if not 1 <= len(reason) <= LONGEST_REASON:
        raise ResolutionRefusedError(f"a reason of 1 to {LONGEST_REASON} characters is needed")
    receipt = receipt.strip().upper() if receipt is not None else None
    if status is Status.COMPLETED and receipt is None:
        raise ResolutionRefusedError(
            "COMPLETED needs the receipt number of the M-PESA statement (--receipt)"
        )
    if status is Status.FAILED and receipt is not None:
        raise ResolutionRefusedError("a receipt number belongs to COMPLETED only")
    if receipt is not None and not _RECEIPT.fullmatch(receipt):
        raise ResolutionRefusedError("a receipt number is 6 to 32 letters and digits")
    return Resolution(by, reason, status, receipt)


def resolve(transaction: Transaction, resolution: Resolution) -> Ending | None:
    """How the transaction ends, None when its state stays. Raises ResolutionRefusedError."""
    if transaction.status in FINAL:
        if resolution.status is not None:
            raise ResolutionRefusedError(
                f"the transaction is {transaction.status} for good: a final state never moves."
                " Without --status its open conflicts are closed"
            )
        return None
    if transaction.attention is None:
        step = next_step(transaction)
        raise ResolutionRefusedError(
            "the transaction does not ask for a person; the gateway goes on by itself"
            f" (next: {step.action if step else 'nothing'})"
        )
    if resolution.status is Status.COMPLETED:
        return _completed(transaction, resolution)
    if resolution.status is Status.FAILED:
        return Ending(Status.FAILED, "person", failure_reason=RESOLVED_FAILED.reason)
    return None


def record_receipt(transaction: Transaction, receipt: str) -> Ending | None:
    """Judge a receipt of the statement for a payment that has ended; its state stays.

    The ending whose receipt and metadata a COMPLETED payment takes over; None for a FAILED one,
    which the receipt contradicts. Raises ResolutionRefusedError.
    """
    if transaction.status not in FINAL:
        raise ResolutionRefusedError(
            "a receipt number belongs to COMPLETED only; the transaction is PENDING, and"
            " --status COMPLETED ends it with this receipt"
        )
    if transaction.receipt is not None:
        raise ResolutionRefusedError(
            f"its receipt is {transaction.receipt} already, and a receipt never changes"
        )
    _refuse_what_never_left(transaction)
    if transaction.status is Status.FAILED:
        return None
    said = {it: value for it, value in (transaction.metadata or {}).items() if value is not None}
    metadata = {**statement_metadata(transaction, receipt), **said}
    return Ending(Status.COMPLETED, "person", receipt=receipt, metadata=metadata)


def _refuse_what_never_left(transaction: Transaction) -> None:
    if transaction.push_state in _NEVER_LEFT:
        raise ResolutionRefusedError(
            f"its push is {transaction.push_state}: it never reached Safaricom, so it is not paid"
        )


def _completed(transaction: Transaction, resolution: Resolution) -> Ending:
    _refuse_what_never_left(transaction)
    return Ending(
        Status.COMPLETED,
        "person",
        result_code="0",
        receipt=resolution.receipt,
        metadata=statement_metadata(transaction, resolution.receipt),
    )


def statement_metadata(
    transaction: Transaction, receipt: str | None
) -> dict[str, int | str | None]:
    """As a callback's, with what an operator can vouch for; the rest is null, not invented."""
    return {
        "Amount": int(transaction.amount),
        "MpesaReceiptNumber": receipt,
        "TransactionDate": None,
        "PhoneNumber": None,
    }

"""What a person may do with a payment that asks for one."""

from __future__ import annotations

import pytest

from harness.clock import NOON
from harness.factories import RECEIPT, make_callback, make_transaction
from mpesa_gateway.domain.resolution import parse_resolution, record_receipt, resolve
from mpesa_gateway.domain.settlement import completed, failed
from mpesa_gateway.domain.transaction import Ending, PushState, Status, finish
from mpesa_gateway.errors import ResolutionRefusedError

PAID = parse_resolution(" amina ", "on the statement", Status.COMPLETED, " ujq22t8iyo ")
UNPAID = parse_resolution("amina", "not on the statement", Status.FAILED, None)
NEVER_LEFT = [PushState.INTENT, PushState.NOT_SENT, PushState.REFUSED]


def test_a_name_and_a_receipt_are_tidied() -> None:
    assert (PAID.by, PAID.receipt) == ("amina", "UJQ22T8IYO")


@pytest.mark.parametrize("push_state", NEVER_LEFT)
def test_what_never_left_was_not_paid_whatever_a_person_says(push_state: PushState) -> None:
    transaction = make_transaction(push_state=push_state, attention="look")

    with pytest.raises(ResolutionRefusedError, match="never reached Safaricom"):
        resolve(transaction, PAID)

    ending = resolve(transaction, UNPAID)
    assert ending is not None
    assert (ending.status, ending.settled_by) == (Status.FAILED, "person")


def test_what_left_is_completed_with_the_receipt_and_nothing_invented() -> None:
    ending = resolve(make_transaction(push_state=PushState.UNKNOWN, attention="look"), PAID)

    assert ending is not None
    assert (ending.status, ending.receipt) == (Status.COMPLETED, "UJQ22T8IYO")
    assert ending.metadata is not None
    assert ending.metadata["PhoneNumber"] is None
    assert ending.metadata["TransactionDate"] is None


BY_QUERY = finish(make_transaction(), completed(None, settled_by="query"), NOON)
BY_CALLBACK = finish(make_transaction(), completed(make_callback(), settled_by="callback"), NOON)
UNRECOGNISED = finish(make_transaction(), failed("5000", "x", settled_by="callback"), NOON)


def test_a_receipt_of_the_statement_is_taken_over_by_a_completed_payment_without_one() -> None:
    ending = record_receipt(BY_QUERY, "UJQ22T8IYO")
    assert ending is not None
    assert ending.receipt == "UJQ22T8IYO"
    assert ending.metadata == {
        "Amount": 10,
        "MpesaReceiptNumber": "UJQ22T8IYO",
        "TransactionDate": None,
        "PhoneNumber": None,
    }


def test_what_a_callback_said_besides_the_receipt_stays() -> None:
    without = completed(make_callback(receipt=None), settled_by="query")
    ending = record_receipt(finish(make_transaction(), without, NOON), RECEIPT)
    assert ending is not None
    assert ending.metadata == make_callback().metadata()


def test_a_receipt_contradicts_a_failed_payment() -> None:
    assert record_receipt(UNRECOGNISED, "UJQ22T8IYO") is None


@pytest.mark.parametrize(
    ("transaction", "why"),
    [
        (make_transaction(attention="look"), "PENDING"),
        (BY_CALLBACK, "never changes"),
        (
            finish(
                make_transaction(push_state=PushState.NOT_SENT),
                Ending(Status.FAILED, "push", failure_reason="not_sent"),
                NOON,
            ),
            "never reached Safaricom",
        ),
    ],
)
def test_a_receipt_is_refused_where_it_cannot_belong(transaction, why) -> None:
    with pytest.raises(ResolutionRefusedError, match=why):
        record_receipt(transaction, "UJQ22T8IYO")


def test_a_receipt_does_not_belong_to_failed() -> None:
    with pytest.raises(ResolutionRefusedError, match="COMPLETED only"):
        parse_resolution("amina", "why", Status.FAILED, "UJQ22T8IYO")


@pytest.mark.parametrize(
    ("by", "reason", "status", "receipt", "why"),
    [
        (" ", "why", None, None, "a name of"),
        ("amina", " ", None, None, "a reason of"),
        ("amina", "why", Status.COMPLETED, None, "needs the receipt number"),
        ("amina", "why", Status.COMPLETED, "A-1", "6 to 32 letters and digits"),
    ],
)
def test_a_word_that_is_not_whole_is_refused(by, reason, status, receipt, why) -> None:
    with pytest.raises(ResolutionRefusedError, match=why):
        parse_resolution(by, reason, status, receipt)


def test_a_final_state_never_moves_and_an_untroubled_payment_is_left_alone() -> None:
    with pytest.raises(ResolutionRefusedError, match="never moves"):
        resolve(BY_CALLBACK, UNPAID)
    with pytest.raises(ResolutionRefusedError, match="goes on by itself"):
        resolve(make_transaction(), UNPAID)
    note = parse_resolution("amina", "why", None, None)
    assert resolve(BY_CALLBACK, note) is None
    assert resolve(make_transaction(attention="look"), note) is None

"""What a person may do with a payment that asks for one."""

from __future__ import annotations

import pytest

from harness.factories import make_transaction
from mpesa_gateway.domain.resolution import parse_resolution, resolve
from mpesa_gateway.domain.transaction import PushState, Status
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

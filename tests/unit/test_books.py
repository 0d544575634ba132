"""The books of a load: which refusal is no loss, and that everything else is one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from harness.books import NOT_SENT, Books
from harness.collecting import every_case
from harness.receiver import Received

PHONE, PAYMENT = "254380740000", "01a223f3-3543-7fcf-bd43-bd44518604da"
TOLD = {
    "phone": PHONE,
    "status": 503,
    "transaction_id": PAYMENT,
    "refusal": f'{{"type": "{NOT_SENT}", "status": 503}}',
    "troubles": ["409"],
}


def books(**told: Any) -> Books:
    """An API was killed between its intent and its push; the sweeper ended the payment."""
    body = {"type": "transaction.failed", "transaction_id": PAYMENT}
    return Books(
        clients={"initiates": [{**TOLD, **told}], "callbacks": []},
        ledger={"pushes": [], "debits": [], "callbacks": []},
        transactions=[
            {
                "internal_transaction_id": PAYMENT,
                "phone": PHONE,
                "amount": 34,
                "status": "FAILED",
                "receipt": None,
            }
        ],
        callbacks=[],
        deliveries=[{"state": "DELIVERED"}],
        ends=[{"transaction_id": 1, "count": 1}],
        webhooks=[
            Received("/hook", headers={"webhook-id": "msg_1"}, body=json.dumps(body).encode())
        ],
    )


def test_what_was_not_sent_may_be_over_where_an_api_was_killed() -> None:
    books().check(unsent_allowed=True)


def test_elsewhere_every_client_has_its_201() -> None:
    with pytest.raises(AssertionError, match="never answered"):
        books().check()


@every_case(
    "wrong",
    [
        books(status=409),
        books(refusal=None),
        books(refusal='{"type": "https://mpesa-gateway.dev/problems/unavailable"}'),
        replace(books(), ledger={**books().ledger, "pushes": [{"phone": PHONE, "accepted": True}]}),
        replace(books(), transactions=[{**books().transactions[0], "status": "COMPLETED"}]),
    ],
    ids=["another answer", "no word", "another word", "it was sent", "it was paid"],
)
def test_who_says_not_sent_must_be_right(wrong: Books) -> None:
    with pytest.raises(AssertionError, match="never answered"):
        wrong.check(unsent_allowed=True)

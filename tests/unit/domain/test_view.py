import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest

from harness.clock import NOON
from harness.collecting import every_case
from harness.factories import CHECKOUT_REQUEST_ID, PHONE, RECEIPT, make_callback, make_transaction
from mpesa_gateway.domain.representation import conflict_view, time_text, transaction_view
from mpesa_gateway.domain.settlement import completed, failed
from mpesa_gateway.domain.transaction import Ending, PushState, Status, finish

PENDING = make_transaction()
PENDING_VIEW = {
    "transaction_id": "019c1000-0000-7000-8000-000000000001",
    "merchant": "default",
    "status": "PENDING",
    "amount": "10",
    "phone": PHONE,
    "account_reference": "Payment",
    "description": "Payment",
    "order_id": None,
    "custom_data": {},
    "webhook_url": "https://shop.example/hook",
    "idempotency_key": "550e8400-e29b-41d4-a716-446655440000",
    "push": "ACCEPTED",
    "checkout_request_id": CHECKOUT_REQUEST_ID,
    "receipt": None,
    "metadata": None,
    "result": None,
    "failure": None,
    "settled_by": None,
    "attention": None,
    "next_step": {"action": "query", "at": "2026-01-31T12:01:00.000Z"},
    "created_at": "2026-01-31T12:00:00.000Z",
    "updated_at": "2026-01-31T12:00:00.000Z",
    "finished_at": None,
}


def test_a_pending_payment_is_shown_with_what_comes_next():
    assert transaction_view(PENDING) == PENDING_VIEW


def test_a_payment_that_waits_for_a_person_says_so():
    view = transaction_view(make_transaction(attention="Look at it.", next_query_at=None))
    assert view["attention"] == "Look at it."
    assert view["next_step"] == {"action": "person", "at": None}


def test_a_completed_payment_is_shown_with_its_result_and_receipt():
    at = NOON + timedelta(seconds=17)
    view = transaction_view(finish(PENDING, completed(make_callback(), settled_by="callback"), at))
    assert view == {
        **PENDING_VIEW,
        "status": "COMPLETED",
        "receipt": RECEIPT,
        "metadata": make_callback().metadata(),
        "result": {
            "code": "0",
            "reason": "paid",
            "cause": None,
            "message": {"en": "The payment was received.", "sw": "Malipo yamepokelewa."},
            "customer_may_retry": False,
            "recognised": True,
        },
        "settled_by": "callback",
        "next_step": None,
        "updated_at": "2026-01-31T12:00:17.000Z",
        "finished_at": "2026-01-31T12:00:17.000Z",
    }


def test_a_failed_payment_is_shown_with_the_reason_and_advice():
    view = transaction_view(finish(PENDING, failed("1032", "x", settled_by="query"), NOON))
    assert view["failure"] == {"code": "1032", "reason": "cancelled"}
    assert view["result"] == {
        "code": "1032",
        "reason": "cancelled",
        "cause": "customer",
        "message": {
            "en": "The payment was cancelled on the phone.",
            "sw": "Malipo yameghairiwa kwenye simu.",
        },
        "customer_may_retry": True,
        "recognised": True,
    }


def test_an_unrecognised_code_is_shown_as_such():
    view = transaction_view(finish(PENDING, failed("7777", "x", settled_by="callback"), NOON))
    assert view["result"]["code"] == "7777"
    assert view["result"]["recognised"] is False


@pytest.mark.parametrize("code", [None, "500.003.02"])
def test_a_push_that_was_not_sent_is_shown_with_safaricoms_code_if_there_is_one(code):
    ending = Ending(Status.FAILED, "push", result_code=code, failure_reason="not_sent")
    asked = make_transaction(checkout_request_id=None, push_state=PushState.NOT_SENT)
    view = transaction_view(finish(asked, ending, NOON))
    assert view["push"] == "NOT_SENT"
    assert view["failure"] == {"code": code, "reason": "not_sent"}
    assert view["result"]["code"] == code
    assert view["result"]["reason"] == "not_sent"
    assert view["result"]["customer_may_retry"] is True


def test_conflicts_are_shown_where_they_were_asked_for():
    assert "conflicts" not in transaction_view(PENDING)
    assert transaction_view(PENDING, [])["conflicts"] == []
    assert transaction_view(PENDING, ({"kind": "a"},))["conflicts"] == [{"kind": "a"}]


def test_a_view_is_json_and_shows_no_secret():
    secret = b"\x5e" * 32
    text = json.dumps(transaction_view(make_transaction(callback_secret_sha256=secret)))
    assert secret.hex() not in text
    assert "secret" not in text
    assert "sha256" not in text


@every_case(
    ("at", "text"),
    [
        (None, None),
        (NOON, "2026-01-31T12:00:00.000Z"),
        (NOON + timedelta(microseconds=1999), "2026-01-31T12:00:00.001Z"),
        (
            datetime(2026, 1, 31, 23, 30, tzinfo=timezone(timedelta(hours=-3))),
            "2026-02-01T02:30:00.000Z",
        ),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_in_utc_with_milliseconds(at, text):
    assert time_text(at) == text


@dataclass(frozen=True)
class ConflictRow:
    kind: str
    receipt: str | None
    result_code: str | None
    opened_at: datetime
    closed_at: datetime | None
    closing_note: str | None


def test_a_conflict_is_shown_open_and_closed():
    opened = ConflictRow("paid_after_failed", RECEIPT, "0", NOON, None, None)
    assert conflict_view(opened) == {
        "kind": "paid_after_failed",
        "receipt": RECEIPT,
        "result_code": "0",
        "opened_at": "2026-01-31T12:00:00.000Z",
        "closed_at": None,
        "closing_note": None,
    }
    later = NOON + timedelta(hours=1)
    closed = ConflictRow("second_receipt", None, None, NOON, later, "Refunded.")
    assert conflict_view(closed)["closed_at"] == "2026-01-31T13:00:00.000Z"
    assert conflict_view(closed)["closing_note"] == "Refunded."

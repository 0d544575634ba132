import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import NOON
from harness.collecting import every_case
from harness.factories import PHONE, RECEIPT, make_callback, make_transaction
from harness.properties import repeatable
from mpesa_gateway.domain.delivery import (
    MAX_RESPONSE_BODY_BYTES,
    MAX_RETRY_AFTER,
    PARK_AFTER_FAILURES,
    PARK_LONGEST,
    Attempt,
    AttemptOutcome,
    DeliveryState,
    NextTry,
    WebhookType,
    after_attempt,
    failure_of,
    park_until,
    response_text,
    webhook_body,
    webhook_id,
)
from mpesa_gateway.domain.representation import transaction_view
from mpesa_gateway.domain.settlement import completed, failed
from mpesa_gateway.domain.transaction import Ending, Status, finish, result_of

MINUTES = tuple(timedelta(minutes=it) for it in (1, 5, 15, 60))
DELIVERED = Attempt(AttemptOutcome.DELIVERED, 204, 12)
FAILED = Attempt(AttemptOutcome.FAILED, 500, 12, reason="http_5xx")
TIMED_OUT = Attempt(AttemptOutcome.FAILED, reason="timeout")
REFUSED = Attempt(AttemptOutcome.REFUSED, reason="refused_by_guard")
LOST = Attempt(AttemptOutcome.UNKNOWN)
GONE = Attempt(AttemptOutcome.FAILED, 410, 12, reason="http_4xx")


def asks(retry_after: timedelta, status: int = 503) -> Attempt:
    return Attempt(AttemptOutcome.FAILED, status, retry_after=retry_after)


@pytest.mark.parametrize("failures", [0, 1, 4, 5])
def test_a_delivery_that_was_taken_is_done(failures):
    assert after_attempt(DELIVERED, failures, MINUTES, NOON) == NextTry(DeliveryState.DELIVERED)


@pytest.mark.parametrize("failures", [1, 4, 5])
def test_410_ends_a_delivery_at_once(failures):
    assert after_attempt(GONE, failures, MINUTES, NOON) == NextTry(DeliveryState.GONE)


@pytest.mark.parametrize("attempt", [FAILED, TIMED_OUT, REFUSED], ids=lambda it: it.reason)
def test_each_failure_waits_as_the_schedule_says_and_the_last_ends_it(attempt):
    following = [after_attempt(attempt, failures, MINUTES, NOON) for failures in range(1, 6)]
    assert following == [
        *(NextTry(DeliveryState.PENDING, NOON + wait) for wait in MINUTES),
        NextTry(DeliveryState.EXHAUSTED),
    ]


def test_without_a_schedule_there_is_one_try():
    assert after_attempt(FAILED, 1, (), NOON) == NextTry(DeliveryState.EXHAUSTED)


def test_a_try_that_a_dead_worker_left_is_repeated_at_once_and_counts():
    assert after_attempt(LOST, 1, MINUTES, NOON) == NextTry(DeliveryState.PENDING, NOON)
    assert after_attempt(LOST, 5, MINUTES, NOON) == NextTry(DeliveryState.EXHAUSTED)


@every_case(
    ("asked", "waited"),
    [
        (timedelta(0), timedelta(minutes=1)),
        (timedelta(seconds=30), timedelta(minutes=1)),
        (timedelta(minutes=2), timedelta(minutes=2)),
        (timedelta(hours=24), timedelta(hours=24)),
        (timedelta(hours=25), timedelta(hours=24)),
        (timedelta.max, timedelta(hours=24)),
        (timedelta(seconds=-5), timedelta(minutes=1)),
    ],
)
def test_retry_after_lengthens_a_wait_never_shortens_it_and_is_bounded(asked, waited):
    following = after_attempt(asks(asked), 1, MINUTES, NOON)
    assert following == NextTry(DeliveryState.PENDING, NOON + waited)


def test_retry_after_buys_no_further_try():
    following = after_attempt(asks(timedelta(hours=1)), 5, MINUTES, NOON)
    assert following == NextTry(DeliveryState.EXHAUSTED)


@every_case(("outcome", "success"), [(it, it is AttemptOutcome.DELIVERED) for it in AttemptOutcome])
def test_only_delivered_is_a_success(outcome, success):
    assert Attempt(outcome).success is success


schedules = st.lists(st.integers(1, 100_000), max_size=6).map(
    lambda it: tuple(timedelta(seconds=seconds) for seconds in it)
)
asked_waits = st.none() | st.timedeltas(timedelta(0), timedelta(days=400))
failed_attempts = st.builds(
    Attempt,
    st.sampled_from([AttemptOutcome.FAILED, AttemptOutcome.REFUSED]),
    st.sampled_from([None, 301, 400, 404, 429, 500, 503]),
    retry_after=asked_waits,
)


@repeatable
@given(schedules, st.data())
def test_a_failing_delivery_is_tried_once_more_than_it_has_waits(schedule, data):
    now, tries = NOON, 0
    while True:
        attempt = data.draw(failed_attempts)
        tries += 1
        following = after_attempt(attempt, tries, schedule, now)
        if following.next_attempt_at is None:
            break
        wait = following.next_attempt_at - now
        assert following.state is DeliveryState.PENDING
        assert wait >= schedule[tries - 1]
        assert wait >= min(attempt.retry_after or timedelta(0), MAX_RETRY_AFTER)
        assert wait <= max(schedule[tries - 1], MAX_RETRY_AFTER)
        now = following.next_attempt_at
    assert following.state is DeliveryState.EXHAUSTED
    assert tries == len(schedule) + 1


@repeatable
@given(failed_attempts, schedules, st.integers(1, 8))
def test_asking_for_more_time_never_gets_less(attempt, schedule, failures):
    with_more = Attempt(
        attempt.outcome, attempt.response_status_code, retry_after=timedelta(days=300)
    )
    one = after_attempt(attempt, failures, schedule, NOON)
    more = after_attempt(with_more, failures, schedule, NOON)
    assert one.state is more.state
    if one.next_attempt_at is not None:
        assert more.next_attempt_at is not None
        assert one.next_attempt_at <= more.next_attempt_at


# ------------------------------------------------------------------------------------- parking


@every_case(
    ("failures", "pause"),
    [
        (0, None),
        (1, None),
        (9, None),
        (10, timedelta(seconds=30)),
        (11, timedelta(minutes=1)),
        (12, timedelta(minutes=2)),
        (13, timedelta(minutes=4)),
        (14, timedelta(minutes=8)),
        (15, timedelta(minutes=15)),
        (16, timedelta(minutes=15)),
        (10**9, timedelta(minutes=15)),
    ],
)
def test_an_endpoint_that_keeps_failing_is_left_alone_for_longer_and_longer(failures, pause):
    until = park_until(failures, NOON)
    assert until == (None if pause is None else NOON + pause)


@repeatable
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_failures_never_shorten_the_pause_and_it_is_bounded(one, other):
    fewer, more = sorted([one, other])
    first, second = park_until(fewer, NOON), park_until(more, NOON)
    assert (first is None) == (fewer < PARK_AFTER_FAILURES)
    if first is not None:
        assert second is not None
        assert NOON < first <= second <= NOON + PARK_LONGEST


def test_one_delivery_alone_does_not_park_its_endpoint():
    assert len(MINUTES) + 1 < PARK_AFTER_FAILURES


# ------------------------------------------------------------------------------------ the bytes

PENDING = make_transaction(account_reference="INV-7")
PAID = finish(PENDING, completed(make_callback(), settled_by="callback"), NOON)
CANCELLED = finish(PENDING, failed("1032", "cancelled", settled_by="callback"), NOON)
METADATA = {
    "Amount": 10,
    "MpesaReceiptNumber": RECEIPT,
    "TransactionDate": 20261002181102,
    "PhoneNumber": "254708374149",
}
COMMON: dict[str, Any] = {
    "transaction_id": str(PENDING.id),
    "merchant": "default",
    "amount": "10",
    "phone": PHONE,
    "account_reference": "INV-7",
    "order_id": None,
    "custom_data": {},
    "timestamp": "2026-01-31T12:00:00.000Z",
}


def test_a_completed_payment_is_told_with_its_metadata():
    assert json.loads(webhook_body(WebhookType.COMPLETED, PAID, NOON)) == {
        **COMMON,
        "type": "transaction.completed",
        "status": "COMPLETED",
        "metadata": METADATA,
        "result": result_of(PAID),
    }


def test_a_failed_payment_is_told_with_its_code_and_our_word():
    assert json.loads(webhook_body(WebhookType.FAILED, CANCELLED, NOON)) == {
        **COMMON,
        "type": "transaction.failed",
        "status": "FAILED",
        "metadata": None,
        "result": result_of(CANCELLED),
        "failure": {"code": "1032", "reason": "cancelled"},
    }


def test_a_payment_that_a_query_settled_has_no_metadata():
    by_query = finish(PENDING, completed(None, settled_by="query"), NOON)
    told = json.loads(webhook_body(WebhookType.COMPLETED, by_query, NOON))
    assert told["metadata"] is None
    assert "failure" not in told


def test_money_that_was_taken_after_a_failure_is_told_with_its_receipt():
    conflict = {"kind": "paid_after_failed", "receipt": RECEIPT, "metadata": METADATA}
    told = json.loads(webhook_body(WebhookType.CONFLICT, CANCELLED, NOON, conflict=conflict))
    assert told == {
        **COMMON,
        "type": "transaction.conflict",
        "status": "FAILED",
        "metadata": METADATA,
        "result": result_of(CANCELLED),
        "failure": {"code": "1032", "reason": "cancelled"},
        "conflict": conflict,
    }


def test_a_phone_that_an_earlier_release_stored_as_a_number_is_told_as_text():
    stored = replace(PAID, metadata={**METADATA, "PhoneNumber": 254708374149})
    assert json.loads(webhook_body(WebhookType.UPDATED, stored, NOON))["metadata"] == METADATA
    assert transaction_view(stored)["metadata"] == METADATA


def test_the_webhook_and_the_view_say_the_same_result():
    for transaction in (PAID, CANCELLED):
        told = json.loads(webhook_body(WebhookType.COMPLETED, transaction, NOON))
        assert told["result"] == transaction_view(transaction)["result"]


def test_the_bytes_are_the_same_every_time_and_have_no_needless_spaces():
    body = webhook_body(WebhookType.UPDATED, PAID, NOON)
    assert body == webhook_body(WebhookType.UPDATED, PAID, NOON)
    assert body.startswith(b'{"type":"transaction.updated","transaction_id":"019c1000-')
    assert b": " not in body
    assert b", " not in body


def test_the_time_is_told_in_utc_whatever_zone_it_came_in():
    nairobi = datetime(2026, 1, 31, 15, 0, 0, 123456, tzinfo=timezone(timedelta(hours=3)))
    told = json.loads(webhook_body(WebhookType.COMPLETED, PAID, nairobi))
    assert told["timestamp"] == "2026-01-31T12:00:00.123Z"
    assert nairobi.astimezone(UTC) > NOON


@pytest.mark.parametrize(
    "callback",
    [
        make_callback(amount=Decimal("10.00"), phone="254708***430"),
        make_callback(transaction_date="2026-10-02 18:11:02", phone=None),
        make_callback(phone="\u0662\u0665\u0664 \U0001f600"),
    ],
    ids=["masked", "other date", "not ascii"],
)
def test_whatever_safaricom_said_the_bytes_are_json_in_utf_8(callback):
    transaction = finish(PENDING, completed(callback, settled_by="callback"), NOON)
    told = json.loads(webhook_body(WebhookType.COMPLETED, transaction, NOON).decode("utf-8"))
    assert told["metadata"] == callback.metadata()
    assert told["amount"] == "10"


def test_a_push_that_was_not_sent_has_a_reason_and_perhaps_no_code():
    ending = Ending(Status.FAILED, "push", failure_reason="not_sent")
    assert failure_of(finish(PENDING, ending, NOON)) == {"code": None, "reason": "not_sent"}


def test_the_words_that_merchants_and_tables_keep_are_stable():
    assert [it.value for it in WebhookType] == [
        "transaction.completed",
        "transaction.failed",
        "transaction.updated",
        "transaction.conflict",
    ]
    assert [it.value for it in DeliveryState] == ["PENDING", "DELIVERED", "EXHAUSTED", "GONE"]


ids = st.tuples(
    st.sampled_from(WebhookType),
    st.uuids(),
    st.lists(st.text(max_size=12), max_size=2).map(tuple),
)


@repeatable
@given(ids, ids)
def test_a_webhooks_id_is_of_what_it_tells_and_of_nothing_else(one, other):
    first, second = (webhook_id(kind, payment, *about) for kind, payment, about in (one, other))
    assert (first == second) == (one == other)
    assert first.startswith("msg_")
    assert len(first) == 36


def test_a_webhooks_id_stays_the_same_in_later_releases():
    """A receiver remembers ids for as long as it likes: the form is part of the contract."""
    made = webhook_id(WebhookType.CONFLICT, uuid.UUID(int=7), "second_receipt", "UJ22T8IYOU")
    assert made == "msg_c08392673a3bfc31070bffc79c8e6a40"


@every_case(
    ("body", "text"),
    [
        (b"", None),
        (b"ok", "ok"),
        (b"\xff\x00a", "\ufffd\ufffda"),
        ("\u20ac".encode(), "\u20ac"),
        (b"x" * 3000, "x" * 2048),
        (b"\xff" * 3000, "\ufffd" * 682),
        (b"x" + "\u20ac".encode() * 1000, "x" + "\u20ac" * 682),
        (b"\x1f\x8b\x08", "\x1f\ufffd\x08"),
    ],
)
def test_of_an_answer_the_beginning_is_kept_as_text(body: bytes, text: str | None) -> None:
    assert response_text(body) == text
    assert len((text or "").encode()) <= MAX_RESPONSE_BODY_BYTES

import dataclasses
import hashlib
import re
import uuid
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import NOON
from harness.collecting import every_case
from harness.factories import make_callback, make_request, make_transaction
from harness.properties import json_values, repeatable
from mpesa_gateway.domain.results import PUSH_REASONS, meaning_of
from mpesa_gateway.domain.settlement import completed, failed
from mpesa_gateway.domain.transaction import (
    ACCOUNT_REFERENCE_PATTERN,
    DEFAULT_ACCOUNT_REFERENCE,
    DEFAULT_DESCRIPTION,
    DESCRIPTION_PATTERN,
    FINAL,
    PROMPT_LIFE,
    QUERY_WINDOW,
    UNKNOWN_PUSH_PATIENCE,
    Ending,
    NextStep,
    PushState,
    Status,
    finish,
    next_query_at,
    next_step,
    parse_reference,
    result_meaning,
)
from mpesa_gateway.errors import InvalidInputError, TransitionError

LATER = NOON + timedelta(minutes=3)
SCHEDULE = tuple(timedelta(minutes=it) for it in (1, 2, 4, 8, 15, 30, 60))
PAID = completed(make_callback(), settled_by="callback")
CANCELLED = failed("1032", "Request cancelled by user", settled_by="callback")


@every_case(("current", "wanted"), list(product(FINAL, Status)))
def test_a_final_transaction_never_changes(current, wanted):
    with pytest.raises(TransitionError):
        finish(make_transaction(status=current), Ending(wanted, "callback"), LATER)


def test_a_pending_transaction_cannot_end_pending():
    with pytest.raises(TransitionError):
        finish(make_transaction(), Ending(Status.PENDING, "callback"), LATER)


@pytest.mark.parametrize("ending", [PAID, CANCELLED], ids=lambda it: it.status)
def test_the_end_is_written_down_with_who_said_it_and_when(ending):
    asked = make_transaction(attention="Look at it.", queries_made=2, provisional_code="1037")
    finished = finish(asked, ending, LATER)
    assert finished == replace(
        asked,
        status=ending.status,
        settled_by="callback",
        result_code=ending.result_code,
        result_desc=ending.result_desc,
        failure_reason=ending.failure_reason,
        receipt=ending.receipt,
        metadata=ending.metadata,
        attention=None,
        next_query_at=None,
        updated_at=LATER,
        finished_at=LATER,
    )
    assert asked.status is Status.PENDING


def test_a_refusal_to_change_names_the_transaction_and_no_person():
    final = finish(make_transaction(), PAID, LATER)
    with pytest.raises(TransitionError) as refused:
        finish(final, CANCELLED, LATER)
    assert str(refused.value) == f"{final.id}: COMPLETED -> FAILED"


def test_there_are_three_statuses_and_two_are_final():
    assert [status.value for status in Status] == ["PENDING", "COMPLETED", "FAILED"]
    assert FINAL == (Status.COMPLETED, Status.FAILED)


@repeatable
@given(st.lists(st.sampled_from([PAID, CANCELLED, Ending(Status.PENDING, "query")]), max_size=6))
def test_in_any_sequence_of_endings_the_first_real_one_stays(endings):
    transaction = make_transaction()
    for number, ending in enumerate(endings):
        before = transaction
        try:
            transaction = finish(transaction, ending, LATER + timedelta(seconds=number))
        except TransitionError:
            assert transaction is before
    real = [ending for ending in endings if ending.status in FINAL]
    assert transaction.status is (real[0].status if real else Status.PENDING)
    assert (transaction.finished_at is None) == (not real)


# ------------------------------------------------------------------------------- its fingerprint


def test_ten_shillings_are_one_request_however_they_are_written():
    written = [make_request(amount=Decimal(it)) for it in ("10", "10.0", "10.00", "1E+1")]
    assert len({request.sha256() for request in written}) == 1


def test_the_key_is_no_part_of_what_was_asked_for():
    first, second = (make_request(idempotency_key=uuid.UUID(int=it)) for it in (1, 2))
    assert first.sha256() == second.sha256()


@every_case(
    "changes",
    [
        {"amount": Decimal(11)},
        {"phone": "254708374140"},
        {"webhook_url": "https://shop.example/other"},
        {"webhook_url": None},
        {"webhook_url": ""},
        {"account_reference": "Invoice 7"},
        {"description": "Bread"},
    ],
    ids=str,
)
def test_any_other_change_is_another_request(changes):
    assert make_request(**changes).sha256() != make_request().sha256()


def test_fields_cannot_be_moved_into_each_other():
    one = make_request(account_reference="a", description="b c")
    other = make_request(account_reference="a b", description="c")
    assert one.sha256() != other.sha256()
    assert len(one.sha256()) == hashlib.sha256().digest_size


def test_the_fingerprint_is_stable_over_releases():
    # Keys replay for ever, so a new release must compute what an old one stored.
    expected = b'["10", "254708374149", "https://shop.example/hook", "Payment", "Payment"]'
    assert make_request().sha256() == hashlib.sha256(expected).digest()


def test_a_request_that_names_neither_reference_nor_description_has_both():
    request = make_request()
    assert (request.account_reference, request.description) == ("Payment", "Payment")


# ------------------------------------------------------------------------------------- its meaning


def test_a_pending_payment_means_nothing_yet():
    assert result_meaning(make_transaction()) is None


def test_a_final_payment_means_what_its_code_says():
    assert result_meaning(finish(make_transaction(), PAID, LATER)) == meaning_of("0")
    assert result_meaning(finish(make_transaction(), CANCELLED, LATER)) == meaning_of("1032")
    by_query = completed(None, settled_by="query")
    assert result_meaning(finish(make_transaction(), by_query, LATER)) == meaning_of("0")


@every_case("reason", list(PUSH_REASONS))
@every_case("code", [None, "500.003.02", "1"])
def test_a_push_that_failed_means_what_became_of_the_push(reason, code):
    ending = Ending(Status.FAILED, "push", result_code=code, failure_reason=reason)
    assert result_meaning(finish(make_transaction(), ending, LATER)) == PUSH_REASONS[reason]


# ----------------------------------------------------------------------------------- what is next

LEASE = NOON + timedelta(seconds=20)
QUERY = NOON + timedelta(minutes=1)


@every_case(
    ("changes", "step"),
    [
        ({"next_query_at": QUERY}, NextStep("query", QUERY)),
        (
            {"next_query_at": None},
            NextStep("wait_for_callback", NOON + UNKNOWN_PUSH_PATIENCE),
        ),
        (
            {"push_state": PushState.INTENT, "push_lease_until": LEASE, "next_query_at": None},
            NextStep("push_answer", LEASE),
        ),
        (
            {"push_state": PushState.SENDING, "push_lease_until": LEASE, "next_query_at": QUERY},
            NextStep("push_answer", LEASE),
        ),
        (
            {"push_state": PushState.UNKNOWN, "next_query_at": QUERY},
            NextStep("query", QUERY),
        ),
        ({"attention": "Look at it.", "next_query_at": QUERY}, NextStep("person", None)),
        (
            {"attention": "Look at it.", "push_state": PushState.SENDING},
            NextStep("person", None),
        ),
    ],
    ids=str,
)
def test_a_pending_payment_says_what_comes_next(changes, step):
    assert next_step(make_transaction(**changes)) == step


@pytest.mark.parametrize("ending", [PAID, CANCELLED], ids=lambda it: it.status)
def test_nothing_comes_next_after_the_end(ending):
    assert next_step(finish(make_transaction(attention="Look at it."), ending, LATER)) is None


# ---------------------------------------------------------------------------------- when to ask


def test_the_waits_of_the_schedule_follow_each_other_and_the_last_repeats():
    asked = [next_query_at(made, SCHEDULE, NOON, NOON) for made in range(10)]
    waits = [at - NOON for at in asked if at is not None]
    assert waits == [*SCHEDULE, SCHEDULE[-1], SCHEDULE[-1], SCHEDULE[-1]]


def test_asking_stops_after_a_day():
    last = NOON + QUERY_WINDOW - SCHEDULE[-1]
    assert next_query_at(9, SCHEDULE, NOON, last) == NOON + QUERY_WINDOW
    assert next_query_at(9, SCHEDULE, NOON, last + timedelta(microseconds=1)) is None
    assert timedelta(hours=24) == QUERY_WINDOW


@repeatable
@given(st.lists(st.integers(1, 7200), min_size=1, max_size=6), st.integers(0, 300))
def test_under_any_schedule_the_asking_moves_forward_and_ends(seconds, delay_s):
    schedule = tuple(timedelta(seconds=it) for it in seconds)
    made, now = 0, NOON
    while made < 30:
        at = next_query_at(made, schedule, NOON, now)
        if at is None:
            assert now + schedule[min(made, len(schedule) - 1)] > NOON + QUERY_WINDOW
            return
        assert now < at <= NOON + QUERY_WINDOW
        assert at - now == schedule[min(made, len(schedule) - 1)]
        made, now = made + 1, at + timedelta(seconds=delay_s)


def test_a_prompt_is_taken_for_open_longer_than_safaricom_keeps_it():
    assert timedelta(seconds=60) < PROMPT_LIFE <= timedelta(seconds=90)


# ------------------------------------------------------------------------ what the phone shows

FIELDS = [
    ("account_reference", ACCOUNT_REFERENCE_PATTERN, 12),
    ("description", DESCRIPTION_PATTERN, 13),
]


@pytest.mark.parametrize(("field", "pattern", "limit"), FIELDS)
def test_letters_digits_spaces_and_hyphens_are_shown(field, pattern, limit):
    for text in ("a", "7", "Invoice 7", "INV-2026", "A" * limit, "a- -", DEFAULT_DESCRIPTION):
        assert parse_reference(text, field, pattern, limit) == text


@every_case(("field", "pattern", "limit"), FIELDS)
@every_case(
    "value",
    [
        "",
        " ",
        " a",
        "-a",
        "a\n",
        "a\tb",
        "a_b",
        "a/b",
        "a&b",
        "a.b",
        "a'b",
        "<b>",
        "caf\u00e9",
        "\u0661",
        "a\u00a0b",
        "A" * 14,
        None,
        7,
        True,
        ["a"],
        {"a": 1},
        b"a",
    ],
    ids=ascii,
)
def test_anything_else_is_refused_and_the_field_is_named(field, pattern, limit, value):
    with pytest.raises(InvalidInputError, match=f"at most {limit} letters") as refused:
        parse_reference(value, field, pattern, limit)
    assert [problem.field for problem in refused.value.problems] == [field]


def test_a_reference_has_12_characters_at_most_and_a_description_13():
    for field, pattern, limit in FIELDS:
        with pytest.raises(InvalidInputError):
            parse_reference("A" * (limit + 1), field, pattern, limit)


@repeatable
@given(json_values() | st.text(st.sampled_from("aZ09 -_\n\u00e9"), max_size=15))
def test_what_is_shown_is_given_back_as_it_was(value):
    for field, pattern, limit in FIELDS:
        try:
            assert parse_reference(value, field, pattern, limit) == value
        except InvalidInputError:
            continue
        assert re.fullmatch(r"[A-Za-z0-9 -]+", value, re.ASCII)
        assert len(value) <= limit


def test_the_defaults_are_texts_that_a_caller_could_give():
    assert parse_reference(DEFAULT_ACCOUNT_REFERENCE, "account_reference", *FIELDS[0][1:])
    assert parse_reference(DEFAULT_DESCRIPTION, "description", *FIELDS[1][1:])


def test_a_transaction_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_transaction().status = Status.COMPLETED  # type: ignore[misc]

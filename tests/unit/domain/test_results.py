import re

import pytest

from harness.collecting import every_case
from harness.data import load_callbacks
from mpesa_gateway.domain.results import CATALOGUE, PUSH_REASONS, meaning_of

# Code, reason, cause, customer may try again: the table of STK result codes, row by row.
ROWS = [
    ("0", "paid", None, False),
    ("1", "insufficient_funds", "customer", True),
    ("2", "amount_too_small", "request", False),
    ("3", "amount_too_large", "request", True),
    ("4", "daily_limit", "customer", True),
    ("8", "merchant_balance_full", "merchant", True),
    ("11", "account_invalid", "customer", False),
    ("17", "repeated_too_soon", "customer", True),
    ("26", "safaricom_busy", "safaricom", True),
    ("1001", "subscriber_locked", "customer", True),
    ("1019", "expired", "safaricom", True),
    ("1025", "push_failed", "request", True),
    ("1031", "cancelled", "customer", True),
    ("1032", "cancelled", "customer", True),
    ("1036", "network_timeout", "safaricom", True),
    ("1037", "no_answer", "customer", True),
    ("1050", "standing_order_duplicate", "request", False),
    ("1051", "standing_order_invalid", "request", False),
    ("1101", "prompt_too_long", "request", True),
    ("1102", "prompt_too_long", "request", True),
    ("2001", "wrong_pin", "customer", True),
    ("2006", "account_inactive", "customer", False),
    ("2028", "merchant_not_permitted", "merchant", False),
    ("4999", "processing", None, False),
    ("8006", "pin_locked", "customer", False),
    ("9999", "push_failed", "request", True),
    ("SFC_IC0003", "merchant_unknown", "merchant", False),
    *((str(it), "safaricom_overloaded", "safaricom", True) for it in range(100000000, 100000012)),
]
NOT_FINAL_IN_A_QUERY = {"4999", *(str(it) for it in range(100000000, 100000012))}


@every_case(("code", "reason", "cause", "may_retry"), ROWS)
def test_a_code_has_its_reason_cause_and_advice(code, reason, cause, may_retry):
    meaning = meaning_of(code)
    assert meaning.code == code
    assert (meaning.reason, meaning.cause) == (reason, cause)
    assert meaning.customer_may_retry is may_retry
    assert meaning.recognised


@every_case("code", [row[0] for row in ROWS])
def test_still_processing_is_never_final_and_an_overload_is_not_in_a_query(code):
    meaning = meaning_of(code)
    assert meaning.final_in_callback is (code != "4999")
    assert meaning.final_in_query is (code not in NOT_FINAL_IN_A_QUERY)


def test_the_catalogue_has_no_other_code():
    assert list(CATALOGUE) == [row[0] for row in ROWS]


@every_case("code", ["7777", "", "00", "0.0", " 1032", "sfc_ic0003", "100000012"])
def test_an_unknown_code_is_final_in_a_callback_only_and_flagged(code):
    meaning = meaning_of(code)
    assert meaning.code == code
    assert (meaning.reason, meaning.cause) == ("unrecognised", "unknown")
    assert meaning.final_in_callback
    assert not meaning.final_in_query
    assert not meaning.recognised


EVERY_MEANING = [*CATALOGUE.values(), *PUSH_REASONS.values(), meaning_of("7777")]


@every_case("meaning", EVERY_MEANING, ids=lambda it: f"{it.reason} {it.code}")
def test_every_meaning_speaks_to_the_payer_in_both_languages(meaning):
    assert re.fullmatch("[a-z]+(_[a-z]+)*", meaning.reason)
    assert meaning.en.endswith(".")
    assert meaning.sw.endswith(".")
    assert meaning.en != meaning.sw
    assert not re.search(r"\d{4}|SFC", meaning.en + meaning.sw)


def test_equal_reasons_say_equal_things():
    by_reason: dict[str, object] = {}
    for meaning in EVERY_MEANING:
        said = (meaning.cause, meaning.customer_may_retry, meaning.en, meaning.sw)
        assert by_reason.setdefault(meaning.reason, said) == said


@pytest.mark.parametrize(
    ("reason", "cause", "may_retry"),
    [
        ("not_sent", "safaricom", True),
        ("refused", "request", False),
        ("refused_merchant", "merchant", False),
        ("credentials_refused", "merchant", False),
    ],
)
def test_a_push_that_never_became_a_prompt_has_a_meaning_too(reason, cause, may_retry):
    meaning = PUSH_REASONS[reason]
    assert (meaning.cause, meaning.customer_may_retry) == (cause, may_retry)
    assert meaning.code == ""
    assert len(PUSH_REASONS) == 4


def test_reasons_of_pushes_and_of_results_are_never_the_same_word():
    assert not {it.reason for it in CATALOGUE.values()} & set(PUSH_REASONS)
    assert "unrecognised" not in PUSH_REASONS


def test_every_recorded_failure_has_a_meaning_that_ends_a_payment():
    failed = [it for it in load_callbacks() if it.effect == "failed"]
    assert failed
    assert all(meaning_of(it.code or "").final_in_callback for it in failed)


@pytest.mark.parametrize(
    ("prose", "tops_up"),
    [
        (None, True),
        ("", True),
        ("[MpesaCB - ]The balance is insufficient for the transaction.", True),
        ("The initiator information is invalid.", False),
    ],
)
def test_code_1_says_top_up_unless_the_text_speaks_of_something_else(prose, tops_up):
    meaning = meaning_of("1", prose)
    assert (meaning.code, meaning.reason) == ("1", "insufficient_funds")
    assert ("Top up" in meaning.en, "Ongeza" in meaning.sw) == (tops_up, tops_up)

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.clock import NOON
from harness.collecting import every_case
from harness.data import Callback, load_callbacks
from harness.factories import CHECKOUT_REQUEST_ID, RECEIPT, make_callback, make_transaction
from harness.properties import repeatable
from mpesa_gateway.domain.callback import (
    CallbackUnreadableError,
    StkCallback,
    parse_stk_callback,
)
from mpesa_gateway.domain.settlement import (
    HELD,
    QUARANTINED,
    Settlement,
    Verdict,
    completed,
    failed,
    settle,
)
from mpesa_gateway.domain.transaction import (
    FINAL,
    Ending,
    PushState,
    Status,
    Transaction,
    finish,
)

OTHER_ID = "ws_CO_021020261805069708374150"
OTHER_RECEIPT = "UJ22T8IYOV"


def not_paid(code: str = "1032", **overrides: Any) -> StkCallback:
    nothing = {"amount": None, "receipt": None, "transaction_date": None, "phone": None}
    return make_callback(
        **{"result_code": code, "result_desc": "what they say", **nothing, **overrides}
    )


PENDING = make_transaction()
WITHOUT_ID = make_transaction(checkout_request_id=None, push_state=PushState.UNKNOWN)
COMPLETED = finish(PENDING, completed(make_callback(), settled_by="callback"), NOON)
BY_QUERY = finish(PENDING, completed(None, settled_by="query"), NOON)
FAILED = finish(PENDING, failed("1037", "No response", settled_by="callback"), NOON)
NOT_SENT = finish(
    make_transaction(checkout_request_id=None, push_state=PushState.NOT_SENT),
    Ending(Status.FAILED, "push", failure_reason="not_sent"),
    NOON,
)

PAID = make_callback()
ANOTHER = make_callback(receipt=OTHER_RECEIPT)
NO_RECEIPT = make_callback(receipt=None)
NO_AMOUNT = make_callback(amount=None)
NOTHING = make_callback(amount=None, receipt=None)
MORE = make_callback(amount=Decimal("10.01"))
LESS = make_callback(amount=Decimal(1), receipt=None)
FOREIGN = make_callback(checkout_request_id=OTHER_ID)
FOREIGN_FAILURE = not_paid(checkout_request_id=OTHER_ID)
CANCELLED = not_paid()
SAME_FAILURE = not_paid("1037")
UNKNOWN_CODE = not_paid("7777")
OVERLOAD = not_paid("100000003")
PROCESSING = not_paid("4999")
STRING_CODE = not_paid("SFC_IC0003")
# They contradict themselves, or say nothing that can be believed.
ZEROS = make_callback(result_code="00000000")
ZEROS_ALONE = not_paid("00")
ZEROS_OF_MORE = make_callback(result_code="00", amount=Decimal(11))
ZEROS_OF_ANOTHER = make_callback(result_code="00", receipt=OTHER_RECEIPT)
FALSE = not_paid("false")
NO_CODE = make_callback(result_code="")
UNKNOWN_WITH_RECEIPT = make_callback(result_code="7777")
CANCELLED_WITH_RECEIPT = make_callback(result_code="1032")
CANCELLED_WITH_AMOUNT = not_paid("1032", amount=Decimal(10))
PROCESSING_WITH_RECEIPT = make_callback(result_code="4999")

TABLE = [
    ("pending", PENDING, PAID, Verdict.COMPLETE),
    ("pending", PENDING, make_callback(amount=Decimal("10.00")), Verdict.COMPLETE),
    ("pending", PENDING, make_callback(phone=None, transaction_date=None), Verdict.COMPLETE),
    ("pending", PENDING, NO_RECEIPT, Verdict.CONFIRM),
    ("pending", PENDING, NO_AMOUNT, Verdict.CONFIRM),
    ("pending", PENDING, NOTHING, Verdict.CONFIRM),
    ("pending", PENDING, MORE, Verdict.WRONG_AMOUNT),
    ("pending", PENDING, LESS, Verdict.WRONG_AMOUNT),
    ("pending", PENDING, FOREIGN, Verdict.MISMATCH),
    ("pending", PENDING, FOREIGN_FAILURE, Verdict.MISMATCH),
    ("pending", PENDING, CANCELLED, Verdict.FAIL),
    ("pending", PENDING, UNKNOWN_CODE, Verdict.UNCONFIRMED),
    ("pending", PENDING, STRING_CODE, Verdict.UNCONFIRMED),
    ("pending", PENDING, ZEROS, Verdict.CONFIRM),
    ("pending", PENDING, ZEROS_ALONE, Verdict.CONFIRM),
    ("pending", PENDING, FALSE, Verdict.CONFIRM),
    ("pending", PENDING, NO_CODE, Verdict.CONFIRM),
    ("pending", PENDING, UNKNOWN_WITH_RECEIPT, Verdict.CONFIRM),
    ("pending", PENDING, CANCELLED_WITH_RECEIPT, Verdict.CONFIRM),
    ("pending", PENDING, PROCESSING_WITH_RECEIPT, Verdict.CONFIRM),
    ("pending", PENDING, ZEROS_OF_MORE, Verdict.WRONG_AMOUNT),
    ("pending", PENDING, CANCELLED_WITH_AMOUNT, Verdict.FAIL),
    ("pending", PENDING, OVERLOAD, Verdict.FAIL),
    ("pending", PENDING, PROCESSING, Verdict.NOT_FINAL),
    ("id unknown", WITHOUT_ID, PAID, Verdict.COMPLETE),
    ("id unknown", WITHOUT_ID, FOREIGN, Verdict.COMPLETE),
    ("id unknown", WITHOUT_ID, NOTHING, Verdict.CONFIRM),
    ("id unknown", WITHOUT_ID, MORE, Verdict.WRONG_AMOUNT),
    ("id unknown", WITHOUT_ID, FOREIGN_FAILURE, Verdict.FAIL),
    ("completed", COMPLETED, PAID, Verdict.DUPLICATE),
    ("completed", COMPLETED, NO_RECEIPT, Verdict.DUPLICATE),
    ("completed", COMPLETED, NO_AMOUNT, Verdict.DUPLICATE),
    ("completed", COMPLETED, ANOTHER, Verdict.CONFLICT),
    ("completed", COMPLETED, FOREIGN, Verdict.MISMATCH),
    ("completed", COMPLETED, CANCELLED, Verdict.CONFLICT),
    ("completed", COMPLETED, UNKNOWN_CODE, Verdict.CONFLICT),
    ("completed", COMPLETED, ZEROS, Verdict.DUPLICATE),
    ("completed", COMPLETED, ZEROS_ALONE, Verdict.DUPLICATE),
    ("completed", COMPLETED, UNKNOWN_WITH_RECEIPT, Verdict.DUPLICATE),
    ("completed", COMPLETED, CANCELLED_WITH_RECEIPT, Verdict.CONFLICT),
    ("completed", COMPLETED, ZEROS_OF_ANOTHER, Verdict.CONFLICT),
    ("completed by query", BY_QUERY, ZEROS, Verdict.FILL_IN),
    ("completed by query", BY_QUERY, ZEROS_ALONE, Verdict.DUPLICATE),
    ("failed", FAILED, ZEROS, Verdict.CONFLICT),
    ("failed", FAILED, ZEROS_ALONE, Verdict.CONFLICT),
    ("failed", FAILED, UNKNOWN_WITH_RECEIPT, Verdict.CONFLICT),
    ("failed", FAILED, UNKNOWN_CODE, Verdict.DUPLICATE),
    ("completed", COMPLETED, PROCESSING, Verdict.NOT_FINAL),
    ("completed by query", BY_QUERY, PAID, Verdict.FILL_IN),
    ("completed by query", BY_QUERY, NO_AMOUNT, Verdict.FILL_IN),
    ("completed by query", BY_QUERY, NO_RECEIPT, Verdict.DUPLICATE),
    ("completed by query", BY_QUERY, NOTHING, Verdict.DUPLICATE),
    ("completed by query", BY_QUERY, CANCELLED, Verdict.CONFLICT),
    ("failed", FAILED, PAID, Verdict.CONFLICT),
    ("failed", FAILED, NOTHING, Verdict.CONFLICT),
    ("failed", FAILED, FOREIGN, Verdict.MISMATCH),
    ("failed", FAILED, SAME_FAILURE, Verdict.DUPLICATE),
    ("failed", FAILED, CANCELLED, Verdict.DUPLICATE),
    ("failed", FAILED, PROCESSING, Verdict.NOT_FINAL),
    ("not sent", NOT_SENT, PAID, Verdict.CONFLICT),
    ("not sent", NOT_SENT, CANCELLED, Verdict.DUPLICATE),
]


def _id(row):
    where, _, callback, verdict = row
    said = f"{callback.result_code} {callback.amount} {callback.receipt}"
    return f"{where}: {said} -> {verdict}"


@every_case(("transaction", "callback", "verdict"), [row[1:] for row in TABLE], ids=map(_id, TABLE))
def test_every_pair_of_a_transaction_and_a_callback_has_its_verdict(transaction, callback, verdict):
    settlement = settle(transaction, callback)
    assert settlement.verdict is verdict
    ends = verdict in (Verdict.COMPLETE, Verdict.FAIL, Verdict.FILL_IN)
    assert (settlement.ending is not None) == ends
    assert (settlement.conflict is not None) == (verdict is Verdict.CONFLICT)


@every_case("recorded", load_callbacks(), ids=lambda it: it.file)
def test_every_recorded_callback_has_its_effect_on_a_fresh_payment(recorded: Callback):
    assert effect_of(recorded.body) == (recorded.effect, recorded.outcome)


def effect_of(body: bytes) -> tuple[str, str]:
    try:
        callback = parse_stk_callback(body)
    except CallbackUnreadableError:
        return "quarantined", "unreadable"
    verdict = settle(make_transaction(), callback).verdict
    if verdict in HELD:
        return "held", verdict
    return ("quarantined" if verdict in QUARANTINED else verdict.value), verdict


def test_a_success_ends_the_payment_with_its_receipt_and_its_metadata():
    assert settle(PENDING, PAID).ending == Ending(
        Status.COMPLETED,
        "callback",
        result_code="0",
        result_desc="The service request is processed successfully.",
        receipt=RECEIPT,
        metadata={
            "Amount": 10,
            "MpesaReceiptNumber": RECEIPT,
            "TransactionDate": 20261002181102,
            "PhoneNumber": "254708374149",
        },
    )


def test_a_failure_ends_the_payment_with_safaricoms_code_and_our_word():
    assert settle(PENDING, CANCELLED).ending == Ending(
        Status.FAILED,
        "callback",
        result_code="1032",
        result_desc="what they say",
        failure_reason="cancelled",
    )
    assert failed("7777", "what they say", settled_by="callback") == Ending(
        Status.FAILED,
        "callback",
        result_code="7777",
        result_desc="what they say",
        failure_reason="unrecognised",
    )


def test_paid_by_a_query_alone_has_neither_receipt_nor_metadata():
    assert completed(None, settled_by="query") == Ending(Status.COMPLETED, "query", result_code="0")


def test_a_receipt_that_comes_later_is_filled_in():
    ending = settle(BY_QUERY, PAID).ending
    assert ending == completed(PAID, settled_by="callback")
    assert ending.receipt == RECEIPT


def test_a_failure_by_a_query_names_the_query():
    ending = failed("8006", None, settled_by="query")
    assert (ending.settled_by, ending.failure_reason) == ("query", "pin_locked")
    assert ending.result_desc is None


@every_case(
    ("transaction", "callback", "kind"),
    [
        (FAILED, PAID, "paid_after_failed"),
        (FAILED, NOTHING, "paid_after_failed"),
        (FAILED, UNKNOWN_WITH_RECEIPT, "paid_after_failed"),
        (NOT_SENT, PAID, "paid_after_failed"),
        (COMPLETED, ANOTHER, "second_receipt"),
        (COMPLETED, ZEROS_OF_ANOTHER, "second_receipt"),
        (COMPLETED, CANCELLED, "failed_after_completed"),
        (COMPLETED, CANCELLED_WITH_RECEIPT, "failed_after_completed"),
        (BY_QUERY, CANCELLED, "failed_after_completed"),
    ],
)
def test_what_contradicts_a_final_state_is_a_conflict(transaction, callback, kind):
    assert settle(transaction, callback) == Settlement(Verdict.CONFLICT, conflict=kind)


def test_quarantine_is_for_what_does_not_fit_the_payment():
    assert {Verdict.MISMATCH, Verdict.WRONG_AMOUNT, Verdict.NOT_FINAL} == QUARANTINED


def test_the_words_that_the_inbox_keeps_are_stable():
    assert [verdict.value for verdict in Verdict] == [
        "completed",
        "failed",
        "confirming",
        "unconfirmed",
        "filled_in",
        "conflict",
        "duplicate",
        "checkout_request_id_mismatch",
        "amount_mismatch",
        "not_final",
    ]


# ------------------------------------------------------------------------------------------------

transactions = st.sampled_from([PENDING, WITHOUT_ID, COMPLETED, BY_QUERY, FAILED, NOT_SENT])
callbacks = st.builds(
    make_callback,
    checkout_request_id=st.sampled_from([CHECKOUT_REQUEST_ID, CHECKOUT_REQUEST_ID, OTHER_ID]),
    result_code=st.sampled_from(["0", "0", "00", "1032", "7777", "4999", "SFC_IC0003"])
    | st.text(min_size=1, max_size=8),
    amount=st.none()
    | st.sampled_from([Decimal(10), Decimal("10.00"), Decimal(1), Decimal("10.01")])
    | st.decimals(0, 20, places=2),
    receipt=st.sampled_from([None, RECEIPT, OTHER_RECEIPT]),
)


@repeatable
@given(transactions, callbacks)
def test_complete_needs_a_debit_of_that_amount_with_a_receipt(transaction, callback):
    settlement = settle(transaction, callback)
    complete = settlement.verdict is Verdict.COMPLETE
    known = transaction.checkout_request_id
    assert complete == (
        transaction.status is Status.PENDING
        and callback.result_code == "0"
        and callback.amount == transaction.amount
        and callback.receipt is not None
        and known in (None, callback.checkout_request_id)
    )
    if complete:
        assert settlement.ending == completed(callback, settled_by="callback")


@repeatable
@given(transactions, callbacks)
def test_only_a_pending_payment_ends_and_only_a_missing_receipt_is_filled_in(transaction, callback):
    verdict = settle(transaction, callback).verdict
    if verdict in {Verdict.COMPLETE, Verdict.FAIL, *HELD}:
        assert transaction.status is Status.PENDING
    elif verdict in (Verdict.CONFLICT, Verdict.DUPLICATE):
        assert transaction.status in FINAL
    elif verdict is Verdict.FILL_IN:
        assert transaction.status is Status.COMPLETED
        assert transaction.receipt is None
        assert callback.receipt is not None


@repeatable
@given(transactions, callbacks)
def test_a_failure_ends_it_at_once_only_by_a_listed_code_that_nothing_contradicts(
    transaction, callback
):
    if settle(transaction, callback).verdict is Verdict.FAIL:
        assert callback.result_code == "1032"
        assert callback.receipt is None


@repeatable
@given(transactions, callbacks)
def test_money_that_was_taken_is_never_called_a_failure_or_a_duplicate_of_one(
    transaction, callback
):
    settlement = settle(transaction, callback)
    if callback.claims_payment:
        assert settlement.verdict not in (Verdict.FAIL, Verdict.UNCONFIRMED)
        assert not (settlement.verdict is Verdict.DUPLICATE and transaction.status is Status.FAILED)


@repeatable
@given(transactions, st.lists(callbacks, max_size=10))
def test_in_any_sequence_a_payment_ends_once_and_stays_so(transaction: Transaction, sent):
    endings, now = 0, NOON
    for callback in sent:
        before, now = transaction, now + timedelta(seconds=1)
        settlement = settle(transaction, callback)
        if settlement.verdict in (Verdict.COMPLETE, Verdict.FAIL):
            assert settlement.ending is not None
            transaction = finish(transaction, settlement.ending, now)
            endings += 1
        elif settlement.verdict is Verdict.FILL_IN:
            assert settlement.ending is not None
            transaction = replace(transaction, receipt=settlement.ending.receipt)
        if before.status in FINAL:
            assert transaction == replace(before, receipt=transaction.receipt)
            assert before.receipt in (None, transaction.receipt)
    assert endings <= 1
    assert transaction.status is not Status.FAILED or transaction.receipt is None

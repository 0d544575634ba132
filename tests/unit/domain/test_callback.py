from dataclasses import replace
from decimal import Decimal

import pytest

from harness.bodies import (
    DESCRIPTION,
    ITEMS,
    MERCHANT_REQUEST_ID,
    body_with,
    item,
    with_item,
)
from harness.collecting import every_case
from harness.data import Callback, load_callbacks
from harness.factories import CHECKOUT_REQUEST_ID, PHONE, RECEIPT, make_callback
from mpesa_gateway.domain.callback import (
    CallbackUnreadableError,
    StkCallback,
    is_zero,
    parse_stk_callback,
)

RECORDED = load_callbacks()


@every_case("callback", RECORDED, ids=lambda it: it.file)
def test_every_recorded_body_is_read_or_unreadable(callback: Callback):
    if callback.outcome == "unreadable":
        with pytest.raises(CallbackUnreadableError):
            parse_stk_callback(callback.body)
    else:
        assert parse_stk_callback(callback.body).result_code == callback.code


def test_a_success_is_read_whole():
    recorded = next(it for it in RECORDED if it.file == "paid.json")
    assert parse_stk_callback(recorded.body) == make_callback()


@every_case(
    "file",
    [it.file for it in RECORDED if it.effect == "completed" and it.file.startswith("paid_amount")]
    + [
        "paid_numbers_as_text.json",
        "paid_other_order.json",
        "paid_new_items.json",
        "paid_repeated_equal.json",
        "paid_items_that_are_none.json",
        "paid_pretty.json",
        "paid_utf16.bin",
        "paid_utf8_bom.bin",
        "paid_receipt_padded.json",
        "paid_code_decimal.json",
        "paid_member_twice_equal.json",
    ],
)
def test_the_same_payment_in_another_shape_reads_the_same(file):
    recorded = next(it for it in RECORDED if it.file == file)
    assert parse_stk_callback(recorded.body) == make_callback()


def test_a_failure_is_read_with_its_words_and_nothing_else():
    read = parse_stk_callback(
        body_with(ResultCode=1032, ResultDesc="Request cancelled by user", CallbackMetadata=...)
    )
    assert read == StkCallback(
        CHECKOUT_REQUEST_ID, MERCHANT_REQUEST_ID, "1032", "Request cancelled by user"
    )
    assert not read.paid


@every_case(
    ("sent", "code"),
    [
        (0, "0"),
        ("0", "0"),
        (0.0, "0"),
        ("0.00", "0"),
        (" 0 ", "0"),
        (1032, "1032"),
        ("1032", "1032"),
        (1032.0, "1032"),
        ("SFC_IC0003", "SFC_IC0003"),
        ("00", "00"),
        ("0x0", "0x0"),
        (-1, "-1"),
        ("0,0", "0,0"),
        ("0.", "0."),
        ("0.1", "0.1"),
        ("9" * 32, "9" * 32),
        (False, "false"),
        (True, ""),
        (None, ""),
        (..., ""),
        ([0], ""),
        ("", ""),
        ("0\x07", ""),
        ("0" * 33, ""),
    ],
)
def test_a_code_is_text_and_success_is_nothing_but_zero(sent, code):
    read = parse_stk_callback(body_with(ResultCode=sent))
    assert read.result_code == code
    assert read.paid == (code == "0")


ZEROS = [
    "00",
    "00000000",
    "0x0",
    "0.",
    "0,0",
    "-0",
    "+0.0",
    "0e9",
    "0E+9",
    ".0",
    "\uff10",
    "\u0660",
]


@every_case("code", [*ZEROS, "0", "false", " 0 ", "\uff10\uff10"])
def test_a_zero_in_other_clothes_claims_a_payment(code):
    assert is_zero(code)


@every_case("code", ["", "1", "0.1", "10", "1032", "SFC_IC0003", "0x1", "e9", "0e", "O"])
def test_another_code_claims_none(code):
    assert not is_zero(code)


@every_case("sent", [*ZEROS, False])
def test_a_zero_in_other_clothes_is_not_safaricoms_word_for_paid(sent):
    read = parse_stk_callback(body_with(ResultCode=sent, CallbackMetadata=...))
    assert read.claims_payment
    assert not read.paid


def test_a_zero_with_an_exponent_is_no_other_number():
    sent = body_with(CallbackMetadata=...).replace(b'"ResultCode": 0', b'"ResultCode": 0e9')
    read = parse_stk_callback(sent)
    assert read.claims_payment
    assert not read.paid


@every_case("sent", [None, True, [], "", ...])
def test_a_body_without_a_code_is_read_only_for_its_receipt(sent):
    assert parse_stk_callback(body_with(ResultCode=sent)).claims_payment
    with pytest.raises(CallbackUnreadableError, match="no ResultCode"):
        parse_stk_callback(body_with(ResultCode=sent, CallbackMetadata=...))


@pytest.mark.parametrize(
    "name", ["MPESARECEIPTNUMBER", "mpesaReceiptNumber", " MpesaReceiptNumber "]
)
def test_the_case_of_an_items_name_does_not_matter(name):
    rows = [it for it in ITEMS if it["Name"] != "MpesaReceiptNumber"]
    assert parse_stk_callback(body_with([*rows, item(name, RECEIPT)])) == make_callback()
    contradicted = [*ITEMS, item(name, "UJ22T8IYOV")]
    assert parse_stk_callback(body_with(contradicted)).receipt is None


def test_the_case_of_members_does_not_matter():
    assert parse_stk_callback(
        body_with().lower().replace(RECEIPT.lower().encode(), RECEIPT.encode())
    ) == (
        replace(
            make_callback(),
            result_desc=DESCRIPTION.lower(),
            checkout_request_id=CHECKOUT_REQUEST_ID.lower(),
        )
    )


@every_case(
    ("sent", "description"),
    [
        ("[STK_CB - ]DS timeout.", "[STK_CB - ]DS timeout."),
        (..., ""),
        (None, ""),
        ({"text": "no"}, ""),
        (7, "7"),
        ("x" * 400, "x" * 300),
        ("a\x00b\ud83d", "ab?"),
    ],
)
def test_prose_is_kept_bounded_and_fit_for_a_database(sent, description):
    assert parse_stk_callback(body_with(ResultDesc=sent)).result_desc == description


@every_case("sent", [..., None, 5, "", [], "a\nb", "x" * 129])
def test_a_merchant_request_id_that_cannot_be_used_is_left_out(sent):
    assert parse_stk_callback(body_with(MerchantRequestID=sent)).merchant_request_id is None


def test_ids_may_be_as_long_as_their_columns():
    longest = "w" * 128
    read = parse_stk_callback(body_with(CheckoutRequestID=longest, MerchantRequestID=longest))
    assert (read.checkout_request_id, read.merchant_request_id) == (longest, longest)


@every_case(
    ("values", "amount"),
    [
        ([10.5], Decimal("10.5")),
        (["1.00"], Decimal(1)),
        ([None], None),
        ([True], None),
        ([[10]], None),
        ([-10], None),
        (["ten"], None),
        ([10, 10.0], Decimal(10)),
        ([10, "10"], None),
        ([10, 7], None),
        ([10, 7, 7], None),
        ([10, 7, 10], None),
        ([None, 10], Decimal(10)),
        ([[[[]]], [[[]]]], None),
    ],
)
def test_an_amount_is_a_number_that_nothing_contradicts(values, amount):
    assert with_item("Amount", *values).amount == amount


@every_case(
    ("value", "receipt"),
    [
        (RECEIPT, RECEIPT),
        ("0000000000", None),
        ("null", None),
        ("None", None),
        ("\uff34\uff2b\uff357", None),
        (f" {RECEIPT}\n", RECEIPT),
        ("NLJ7RT61SV", "NLJ7RT61SV"),
        ("ABC", "ABC"),
        ("A" * 32, "A" * 32),
        (1234567890, "1234567890"),
        ("A" * 33, None),
        ("UJ22 T8IYOU", None),
        ("UJ22-T8IYOU", None),
        ("UJ22T8IYOU\x00", RECEIPT),
        ("", None),
        ("  ", None),
        (True, None),
        (1.5, None),
        ([RECEIPT], None),
    ],
)
def test_a_receipt_is_letters_and_digits(value, receipt):
    assert with_item("MpesaReceiptNumber", value).receipt == receipt


@every_case(
    ("value", "kept"),
    [
        (254708374149, PHONE),
        (254708374149.0, PHONE),
        (PHONE, PHONE),
        (f" {PHONE} ", PHONE),
        ("254708***430", "254708***430"),
        ("2547 ***** 126", "2547 ***** 126"),
        ("bbff37ce" * 8, "bbff37ce" * 8),
        ("0708374149", "0708374149"),
        ("9" * 16, "9" * 16),
        ("\u0662\u0665\u0664", "\u0662\u0665\u0664"),
        ("x" * 65, None),
        ("a\x07b", None),
        ("", None),
        (False, None),
        ({}, None),
    ],
)
def test_a_phone_is_text_in_whatever_form_it_comes(value, kept):
    read = with_item("PhoneNumber", value)
    assert read.phone == kept
    assert read.metadata()["PhoneNumber"] == kept


@every_case(
    ("value", "shown"),
    [
        (20261002181102, 20261002181102),
        ("20261002181102", 20261002181102),
        ("2026-10-02 18:11:02", "2026-10-02 18:11:02"),
        ("yesterday", "yesterday"),
        (None, None),
    ],
)
def test_a_date_is_never_judged(value, shown):
    assert with_item("TransactionDate", value).metadata()["TransactionDate"] == shown


@every_case(
    ("amount", "shown"),
    [
        (Decimal(10), 10),
        (Decimal("10.00"), 10),
        (Decimal("10.50"), "10.50"),
        (Decimal(0), 0),
        (None, None),
    ],
)
def test_the_merchant_gets_the_amount_as_a_number_and_never_as_a_float(amount, shown):
    value = make_callback(amount=amount).metadata()["Amount"]
    assert value == shown
    assert type(value) is type(shown)


def test_the_merchant_gets_safaricoms_four_names_even_where_nothing_was_said():
    read = parse_stk_callback(body_with(CallbackMetadata=...))
    assert read.metadata() == dict.fromkeys(
        ["Amount", "MpesaReceiptNumber", "TransactionDate", "PhoneNumber"]
    )


@every_case(
    "sent",
    [
        b'{"ResultCode": 0, "ResultCode": 1032}',
        b'{"ResultCode": 1032, "ResultCode": 0}',
        b'{"ResultCode": 0, "ResultCode": "0"}',
        b'{"ResultCode": false, "ResultCode": 0}',
        b'{"ResultCode": 0, "ResultCode": false}',
        b'{"ResultCode": 1, "ResultCode": true}',
        b'{"ResultCode": 0, "resultcode": 1032}',
        b'{"RESULTCODE": 0, "ResultCode": false}',
        b'{"ResultCode": 0, "Extra": {"a": [false]}, "Extra": {"a": [0]}}',
        b'{"ResultCode": 0, "Extra": {"a": [1], "a": [2]}}',
    ],
)
def test_a_body_that_says_two_things_by_one_name_is_unreadable(sent):
    members = sent.replace(b"{", b'{"CheckoutRequestID": "ws_CO_1", ', 1)
    with pytest.raises(CallbackUnreadableError, match="contradicts itself"):
        parse_stk_callback(b'{"Body": {"stkCallback": %s}}' % members)


@every_case("depth", [500, 5_000, 200_000])
@every_case("opening", [b"[", b'{"Body":', b'{"Body":{"stkCallback":['])
def test_deep_nesting_is_unreadable_and_no_crash(opening, depth):
    with pytest.raises(CallbackUnreadableError):
        parse_stk_callback(opening * depth)


@every_case("depth", [10, 300, 900, 2_000, 100_000])
def test_deep_nesting_inside_of_a_value_is_read_or_unreadable(depth):
    nested = b"[" * depth + b"]" * depth
    twice = b'{"Name":"Amount","Value":%s},{"Name":"Amount","Value":%s}' % (nested, nested)
    sent = body_with().replace(b'"ResultDesc"', b'"Extra":%s,"ResultDesc"' % nested)
    sent = sent.replace(b'"Item": [', b'"Item": [%s,' % twice)
    assert nested in sent
    try:
        assert parse_stk_callback(sent).amount is None
    except CallbackUnreadableError:
        assert depth >= 900


def test_why_it_is_unreadable_is_said_without_a_word_of_the_body():
    for recorded in RECORDED:
        if recorded.outcome == "unreadable":
            with pytest.raises(CallbackUnreadableError) as unreadable:
                parse_stk_callback(recorded.body)
            why = str(unreadable.value)
            assert why
            assert not any(word in why for word in (CHECKOUT_REQUEST_ID, PHONE, RECEIPT))

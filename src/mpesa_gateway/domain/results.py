"""The catalogue of Safaricom's result codes: meaning, whose doing it is, what to tell the payer.

Kept as data. Codes are text (one, `SFC_IC0003`, is not a number). Source of codes and causes: the
Daraja 3.0 pages of December 2025 unless the row says otherwise; the sentences are our own, because
Safaricom's prose changes between releases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Cause = Literal["customer", "merchant", "safaricom", "request", "unknown"]


@dataclass(frozen=True)
class ResultMeaning:
    """What one result code means.

    `reason` is the stable word in `failure.reason`; `final_in_callback` and `final_in_query` say
    whether that source may end a transaction with this code.
    """

    code: str
    reason: str
    cause: Cause | None
    customer_may_retry: bool
    en: str
    sw: str
    final_in_callback: bool = True
    final_in_query: bool = True
    recognised: bool = True


def _rows() -> list[ResultMeaning]:
    row = ResultMeaning
    return [
        row("0", "paid", None, False, "The payment was received.", "Malipo yamepokelewa."),
        row(
            "1",
            "insufficient_funds",
            "customer",
            True,
            "The M-PESA balance is too low. Top up and try again.",
            "Salio la M-PESA halitoshi. Ongeza pesa kisha ujaribu tena.",
        ),
        row(
            "2",
            "amount_too_small",
            "request",
            False,
            "The amount is below the M-PESA minimum.",
            "Kiasi kiko chini ya kiwango cha chini cha M-PESA.",
        ),
        row(
            "3",
            "amount_too_large",
            "request",
            True,
            "The amount is above the M-PESA limit for one payment. Try a smaller amount.",
            "Kiasi kimezidi kikomo cha M-PESA kwa malipo moja. Jaribu kiasi kidogo.",
        ),
        row(
            "4",
            "daily_limit",
            "customer",
            True,
            "The daily M-PESA limit would be passed. Try again tomorrow.",
            "Kikomo cha M-PESA cha siku kitapitwa. Jaribu tena kesho.",
        ),
        row(
            "8",
            "merchant_balance_full",
            "merchant",
            True,
            "The business cannot receive money just now. Please try again later.",
            "Biashara haiwezi kupokea pesa kwa sasa. Tafadhali jaribu baadaye.",
        ),
        row(
            "11",
            "account_invalid",
            "customer",
            False,
            "The M-PESA account cannot make this payment. Call Safaricom customer care.",
            "Akaunti ya M-PESA haiwezi kufanya malipo haya. Piga simu Safaricom.",
        ),
        row(
            "17",
            "repeated_too_soon",
            "customer",
            True,
            "The same amount was paid a moment ago. Wait two minutes and try again.",
            "Kiasi hicho kimelipwa punde. Subiri dakika mbili kisha ujaribu tena.",
        ),
        row(  # On STK a community claim; official on the balance page.
            "26",
            "safaricom_busy",
            "safaricom",
            True,
            "M-PESA is busy. Try again in some minutes.",
            "M-PESA ina shughuli nyingi. Jaribu tena baada ya dakika chache.",
        ),
        row(  # Community claim; agrees with the text of 500.001.1001.
            "1001",
            "subscriber_locked",
            "customer",
            True,
            "Another M-PESA request is open on this phone. Wait two minutes and try again.",
            "Ombi lingine la M-PESA liko wazi kwenye simu hii. Subiri dakika mbili ujaribu tena.",
        ),
        row(
            "1019",
            "expired",
            "safaricom",
            True,
            "The payment request expired. Please try again.",
            "Muda wa ombi la malipo umeisha. Tafadhali jaribu tena.",
        ),
        row(
            "1025",
            "push_failed",
            "request",
            True,
            "The payment request could not be shown on the phone. Please try again.",
            "Ombi la malipo halikuweza kuonyeshwa kwenye simu. Tafadhali jaribu tena.",
        ),
        row(  # Community claim, old form of 1032.
            "1031",
            "cancelled",
            "customer",
            True,
            "The payment was cancelled on the phone.",
            "Malipo yameghairiwa kwenye simu.",
        ),
        row(
            "1032",
            "cancelled",
            "customer",
            True,
            "The payment was cancelled on the phone.",
            "Malipo yameghairiwa kwenye simu.",
        ),
        row(  # Seen in logs of 2018 and 2019 only.
            "1036",
            "network_timeout",
            "safaricom",
            True,
            "The mobile network did not answer in time. Please try again.",
            "Mtandao wa simu haukujibu kwa wakati. Tafadhali jaribu tena.",
        ),
        row(
            "1037",
            "no_answer",
            "customer",
            True,
            "The phone could not be reached, or nobody answered. Please try again.",
            "Simu haikupatikana, au hakuna aliyejibu. Tafadhali jaribu tena.",
        ),
        row(  # Standing orders; one community code table.
            "1050",
            "standing_order_duplicate",
            "request",
            False,
            "A standing order with this name exists already.",
            "Agizo la kudumu lenye jina hili lipo tayari.",
        ),
        row(
            "1051",
            "standing_order_invalid",
            "request",
            False,
            "The standing order is not valid.",
            "Agizo la kudumu si sahihi.",
        ),
        row(  # Community claim.
            "1101",
            "prompt_too_long",
            "request",
            True,
            "The payment request was too long for the phone. Please try again.",
            "Ombi la malipo lilikuwa refu mno kwa simu. Tafadhali jaribu tena.",
        ),
        row(
            "1102",
            "prompt_too_long",
            "request",
            True,
            "The payment request was too long for the phone. Please try again.",
            "Ombi la malipo lilikuwa refu mno kwa simu. Tafadhali jaribu tena.",
        ),
        row(
            "2001",
            "wrong_pin",
            "customer",
            True,
            "The M-PESA PIN was wrong. Please try again.",
            "PIN ya M-PESA si sahihi. Tafadhali jaribu tena.",
        ),
        row(
            "2006",
            "account_inactive",
            "customer",
            False,
            "The M-PESA account is not active. Call Safaricom customer care.",
            "Akaunti ya M-PESA haitumiki. Piga simu Safaricom.",
        ),
        row(
            "2028",
            "merchant_not_permitted",
            "merchant",
            False,
            "The business is not set up to receive this payment.",
            "Biashara haijaandaliwa kupokea malipo haya.",
        ),
        row(  # Measured in the sandbox in 2026; in no official table.
            "4999",
            "processing",
            None,
            False,
            "The payment is still being processed.",
            "Malipo bado yanashughulikiwa.",
            final_in_callback=False,
            final_in_query=False,
        ),
        row(
            "8006",
            "pin_locked",
            "customer",
            False,
            "The M-PESA PIN is locked. Call Safaricom on 100 or 200.",
            "PIN ya M-PESA imefungwa. Piga simu Safaricom 100 au 200.",
        ),
        row(  # Community claim, handled as 1025.
            "9999",
            "push_failed",
            "request",
            True,
            "The payment request could not be shown on the phone. Please try again.",
            "Ombi la malipo halikuweza kuonyeshwa kwenye simu. Tafadhali jaribu tena.",
        ),
        row(
            "SFC_IC0003",
            "merchant_unknown",
            "merchant",
            False,
            "The business number is not known to M-PESA.",
            "Nambari ya biashara haijulikani na M-PESA.",
        ),
        *(
            row(
                str(code),
                "safaricom_overloaded",
                "safaricom",
                True,
                "M-PESA could not take the request. Please try again later.",
                "M-PESA haikuweza kupokea ombi. Tafadhali jaribu baadaye.",
                final_in_query=False,
            )
            for code in range(100_000_000, 100_000_012)
        ),
    ]


CATALOGUE: Mapping[str, ResultMeaning] = {meaning.code: meaning for meaning in _rows()}

# How a push ends that never became a prompt. The code is Safaricom's errorCode, or none.
PUSH_REASONS: Mapping[str, ResultMeaning] = {
    meaning.reason: meaning
    for meaning in [
        ResultMeaning(
            "",
            "not_sent",
            "safaricom",
            True,
            "The payment request could not be sent. Please try again.",
            "Ombi la malipo halikuweza kutumwa. Tafadhali jaribu tena.",
        ),
        ResultMeaning(
            "",
            "refused",
            "request",
            False,
            "M-PESA did not accept the payment request.",
            "M-PESA haikukubali ombi la malipo.",
        ),
        ResultMeaning(
            "",
            "refused_merchant",
            "merchant",
            False,
            "The business is not set up to receive this payment.",
            "Biashara haijaandaliwa kupokea malipo haya.",
        ),
        ResultMeaning(
            "",
            "credentials_refused",
            "merchant",
            False,
            "The business is not set up to receive this payment.",
            "Biashara haijaandaliwa kupokea malipo haya.",
        ),
    ]
}


# How a person ends what Safaricom left open: no code of Safaricom's stands behind it.
RESOLVED_FAILED = ResultMeaning(
    "",
    "resolved_by_person",
    "unknown",
    True,
    "The payment was not received. Please try again.",
    "Malipo hayakupokelewa. Tafadhali jaribu tena.",
)


def meaning_of(code: str) -> ResultMeaning:
    """The meaning of a result code; an unknown one is final in a callback, never in a query."""
    known = CATALOGUE.get(code)
    if known is not None:
        return known
    return ResultMeaning(
        code,
        "unrecognised",
        "unknown",
        True,
        "The payment did not go through. Please try again.",
        "Malipo hayakufaulu. Tafadhali jaribu tena.",
        final_in_query=False,
        recognised=False,
    )

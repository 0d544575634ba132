"""The catalogue of Safaricom's result codes: meaning, whose doing it is, what to tell the payer.

Kept as data. Codes are text (one, `SFC_IC0003`, is not a number). Source of codes and causes: the
Daraja 3.0 pages of December 2025 unless the row says otherwise; the sentences are our own, because
Safaricom's prose changes between releases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Cause = Literal["customer", "merchant", "safaricom", "request", "unknown"]


@dataclass(frozen=True)
class ResultMeaning:
    """What one result code means.

    `reason` is the stable word in `failure.reason`; `final_in_callback` and `final_in_query` say
    whether that source may end a transaction with this code. `queries_before_failed` counts the
    queries that must have denied a callback with this code nothing, before it is believed.
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
    queries_before_failed: int = 0


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
            "Kiasi kimezidi kikomo cha M-PESA kwa muamala mmoja. Jaribu kiasi kidogo zaidi.",
        ),
        row(
            "4",
            "daily_limit",
            "customer",
            True,
            "The daily M-PESA limit would be passed. Try again tomorrow.",
            "Malipo haya yatazidi kikomo cha M-PESA cha siku. Jaribu tena kesho.",
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
            "Akaunti ya M-PESA haiwezi kufanya malipo haya. Pigia Safaricom simu.",
        ),
        row(
            "17",
            "repeated_too_soon",
            "customer",
            True,
            "The same amount was paid a moment ago. Wait two minutes and try again.",
            "Kiasi hicho hicho kimelipwa hivi punde. Subiri dakika mbili kisha ujaribu tena.",
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
            "Simu hii ina ombi lingine la M-PESA. Subiri dakika mbili kisha ujaribu tena.",
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
            "Akaunti ya M-PESA haitumiki. Pigia Safaricom simu.",
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
            "PIN ya M-PESA imefungwa. Pigia Safaricom simu kupitia 100 au 200.",
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
            "Nambari ya biashara haitambuliki na M-PESA.",
            # Seen after the customer had entered the PIN (public issue).
            queries_before_failed=1,
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

UNRECOGNISED = "unrecognised"
# Every stable word that `failure.reason` and `result.reason` may be.
REASONS: tuple[str, ...] = tuple(
    sorted(
        {
            *(meaning.reason for meaning in CATALOGUE.values()),
            *PUSH_REASONS,
            RESOLVED_FAILED.reason,
            UNRECOGNISED,
        }
    )
)


# Code 1 with a text that speaks of anything but money (public issue): the code decides, and the
# customer is not sent to top up.
FAILED_OTHERWISE = (
    "The payment did not go through. Please try again.",
    "Malipo hayakufaulu. Tafadhali jaribu tena.",
)
_INSUFFICIENT_FUNDS = "1"
_WORDS_OF_FUNDS = ("balance", "insufficient", "fund", "salio", "overdraft", "fuliza")


def meaning_of(code: str, description: str | None = None) -> ResultMeaning:
    """The meaning of a result code; Safaricom's text may only make the sentences more careful.

    An unknown code may end a transaction in a callback, never in a query.
    """
    known = CATALOGUE.get(code)
    if known is None:
        return _unrecognised(code)
    text = (description or "").lower()
    if code == _INSUFFICIENT_FUNDS and text and not any(it in text for it in _WORDS_OF_FUNDS):
        en, sw = FAILED_OTHERWISE
        return replace(known, en=en, sw=sw)
    return known


def _unrecognised(code: str) -> ResultMeaning:
    en, sw = FAILED_OTHERWISE
    return ResultMeaning(
        code,
        UNRECOGNISED,
        "unknown",
        True,
        en,
        sw,
        final_in_query=False,
        recognised=False,
        queries_before_failed=2,
    )

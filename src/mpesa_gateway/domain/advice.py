"""What to look at when Safaricom refuses a merchant's settings: one sentence for its operator."""

from __future__ import annotations

from mpesa_gateway.domain.push import ACCESS_REFUSED_CODE
from mpesa_gateway.domain.query import QueryOutcome

_WHERE = "(the MPESA_SAFARICOM_ variables, or the merchant's Secret)"
KEYS = (
    f"Compare the consumer key and the consumer secret {_WHERE} with those of the Daraja app, and"
    " MPESA_SAFARICOM_BASE_URL with the environment that the app belongs to."
)
PASSKEY = (
    f"Compare the passkey and the short code {_WHERE} with those of Safaricom's portal or go-live"
    " mail."
)
SHORT_CODE = f"Compare the short code {_WHERE} with Safaricom's go-live mail."
PRODUCT = "Add the product Lipa Na M-PESA to the Daraja app whose consumer key is used."
WRONG_CREDENTIALS = "wrong credentials"
NO_MERCHANT = "merchant does not exist"


def advise(reason: str, code: str | None, message: str | None) -> str:
    """What to compare after a refused push; empty when the settings are not the cause."""
    said = (message or "").lower()
    if reason == "credentials_refused":
        return KEYS
    if WRONG_CREDENTIALS in said:
        return PASSKEY
    if NO_MERCHANT in said:
        return SHORT_CODE
    return PRODUCT if code == ACCESS_REFUSED_CODE else ""


def find_passkey_problem(outcome: QueryOutcome) -> str | None:
    """What the answer to a query about no payment says against passkey or short code."""
    advice = advise("", outcome.code, outcome.message)
    return f"{outcome.message}. {advice}" if advice else None

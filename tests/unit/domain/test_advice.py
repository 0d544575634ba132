"""What an operator is told to compare when Safaricom refuses."""

from __future__ import annotations

import pytest

from mpesa_gateway.domain.advice import (
    KEYS,
    PASSKEY,
    PRODUCT,
    SHORT_CODE,
    advise,
    find_passkey_problem,
)
from mpesa_gateway.domain.query import QueryClass, QueryOutcome


@pytest.mark.parametrize(
    ("reason", "code", "message", "expected"),
    [
        ("credentials_refused", None, "OAuth answered 400", KEYS),
        ("refused_merchant", "500.001.1001", "[MerchantValidate] - Wrong credentials", PASSKEY),
        ("refused_merchant", "500.001.1001", "Merchant does not exist", SHORT_CODE),
        ("refused_merchant", "401.003.01", "no apiproduct match found", PRODUCT),
        ("refused", "400.002.02", "Bad Request - Invalid Amount", ""),
        ("not_sent", None, None, ""),
    ],
)
def test_a_refusal_names_what_to_compare(
    reason: str, code: str | None, message: str | None, expected: str
) -> None:
    assert advise(reason, code, message) == expected


def test_a_query_tells_of_the_passkey() -> None:
    said = "[MerchantValidate] - Wrong credentials"
    refused = QueryOutcome(QueryClass.NO_INFORMATION, "500.001.1001", said, is_answer=True)
    unknown = QueryOutcome(QueryClass.NO_INFORMATION, "400.002.02", "Invalid CheckoutRequestID")

    assert find_passkey_problem(refused) == f"{said}. {PASSKEY}"
    assert find_passkey_problem(unknown) is None

"""Both exports of the portal, and files that are none."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from mpesa_gateway.domain.statement import PaidIn, Payer, parse_statement
from mpesa_gateway.errors import InvalidInputError

TITLES = (
    "Receipt No,Completion Time,Details,Transaction Status,Paid In (KSHs),Withdrawn (KSHs),"
    "Balance (KSHs)"
)
# The newer export: CRLF, newest first, a charge under the receipt of its payment.
NEW = "\r\n".join(
    [
        "\ufeff" + TITLES,
        'UL12AB34CE,01/12/2026 02:10:09,Pay Bill Charge,Completed,,-5.00,"2,095.00"',
        (
            "UL12AB34CE,01/12/2026 02:10:09,Pay Bill Online from 2547****111 - JANE DOE"
            ' Acc. INV 1,Completed,"1,100.00",,"2,100.00"'
        ),
        (
            "UL12AB34CD,30/11/2026 23:59:59,Merchant Pay Utility Received from 1234567 - SHOP"
            " Acc. B2,Completed,1000.00,,"
        ),
        'UL12AB34CC,30/11/2026 23:00:00,Pay Bill from 254712345678 - A,Failed,10.00,,"1,000.00"',
        "UL12AB34CB,30/11/2026 22:00:00,Agency Withdrawal of funds to Bank,Completed,0.00,-9.00,1",
        "",
    ]
)
# The older one, an Excel file that was saved as CSV.
OLD = """
Account Holder:,A SHOP,,,,,,,,,,,,
Short Code:,174379,,,,,,,,,,,,
Receipt No.,Completion Time,Initiation Time,Details,Transaction Status,Paid In,Withdrawn,Balance,\
Balance Confirmed,Reason Type,Other Party Info,Linked Transaction ID,A/C No.,Currency
QJ10AB34CD,15-10-2025 10:11:12,15-10-2025 10:11:10,Pay Bill Charge,Completed,,-5,95,true,,SP,,,KES
qj10ab34cd,15-10-2025 10:11:12,15-10-2025 10:11:10,Pay Bill Online,Completed,100,,100,true,\
Pay Bill Online,25470****111 - ALICE **** EXAMPLE,,'850060,KES

QJ10AB34CE,2025-10-15 11:00:00,,Move,Completed,-100,,0,true,,,,,KES
QJ10AB34CF,2025-10-15 12:00:00,,Cut,Completed,12.5
"""


def test_the_newer_export() -> None:
    read = parse_statement(NEW)

    assert read.payments == [
        PaidIn(
            "UL12AB34CD", datetime(2026, 11, 30, 20, 59, 59, tzinfo=UTC), Decimal(1000), None, "B2"
        ),
        PaidIn(
            "UL12AB34CE",
            datetime(2026, 11, 30, 23, 10, 9, tzinfo=UTC),
            Decimal(1100),
            Payer("2547", "111"),
            "INV 1",
        ),
    ]
    assert read.other_rows == 3


def test_the_older_export() -> None:
    read = parse_statement(OLD)

    first, second = read.payments
    assert first == PaidIn(
        "QJ10AB34CD",
        datetime(2025, 10, 15, 7, 11, 12, tzinfo=UTC),
        Decimal(100),
        Payer("25470", "111"),
        "850060",
    )
    assert (second.receipt, second.amount, second.account) == ("QJ10AB34CF", Decimal("12.5"), None)
    assert read.other_rows == 2


def test_a_whole_number_is_masked() -> None:
    text = f"{TITLES}\nUL12AB34CE,01/12/2026 02:10:09,Pay Bill from 254712345678,COMPLETED,1,,"
    (paid,) = parse_statement(text).payments
    assert str(paid.payer) == "254****678"


ROW = "UL12AB34CE,01/12/2026 02:10:09,x,Completed,1.00,,"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no row of titles"),
        ("a,b\n1,2\n", "no row of titles"),
        ("\n\n", "no row of titles"),
        ("Receipt No,Details\n", "`completion time`, `transaction status`, `paid in`"),
        (f"{TITLES}\n{ROW.replace('UL12AB34CE', '=1+1')}", "line 2: the receipt"),
        (f"{TITLES}\n{ROW.replace('1.00', 'one')}", "line 2: the amount"),
        (f"{TITLES}\n{ROW.replace('01/12/2026', '2026/13/01')}", "line 2: the completion time"),
        (f'{TITLES}\n{ROW}"{"x" * 140_000}', "line 2 is no CSV"),
    ],
)
def test_what_is_no_statement_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        parse_statement(text)


def test_a_statement_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="more than 4 rows"):
        parse_statement(NEW, max_rows=4)

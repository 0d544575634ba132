"""The M-PESA statement of the organisation portal, as CSV: which payments came in.

Two exports exist (see the two fixtures of the tests). The newer one has the payer in `Details`, the
older one, saved as CSV, in `Other Party Info` below some lines about the account. Both mask the
payer's number. Times are Nairobi's, without saying so.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from mpesa_gateway.errors import InvalidInputError

# East Africa Time has no summer time.
NAIROBI = timezone(timedelta(hours=3), "EAT")
# About half a year of a busy short code; what is longer is exported in parts.
MAX_ROWS = 1_000_000
# Cells of the portal are short; a file with a longer one is something else.
MAX_CELL_LENGTH = 4096
_COMPLETED = "completed"
_TIMES = ("%d/%m/%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S")
_RECEIPT = re.compile(r"[A-Z0-9]{6,32}\Z", re.ASCII)
_AMOUNT = re.compile(r"[0-9]{1,3}(?:,?[0-9]{3})*(?:\.[0-9]{1,2})?\Z", re.ASCII)
# The payer's number: `2547****111`, `25470****111`, or whole.
_PAYER = re.compile(r"(?<![0-9])(254[0-9]{0,6})(\*+)([0-9]{1,6})(?![0-9*])|(?<![0-9])(254[0-9]{9})")
_ACCOUNT = re.compile(r"\bAcc\.\s+(\S.*)\Z")


@dataclass(frozen=True)
class Payer:
    """What a statement shows of a phone number: how it begins and how it ends."""

    begins: str
    ends: str

    def __str__(self) -> str:
        return f"{self.begins}****{self.ends}"


@dataclass(frozen=True)
class PaidIn:
    """One payment that came in. `payer` and `account` are None where the statement has none."""

    receipt: str
    completed_at: datetime
    amount: Decimal
    payer: Payer | None = None
    account: str | None = None


@dataclass(frozen=True)
class Statement:
    """The payments of a statement, oldest first, and how many of its rows are none."""

    payments: list[PaidIn]
    other_rows: int


def parse_statement(text: str, *, max_rows: int = MAX_ROWS) -> Statement:
    """Read a statement. Raises InvalidInputError, which names the line that cannot be read.

    A row is a payment when it was completed and something was paid in. Charges, withdrawals and
    payments that were not completed are counted as other rows.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    columns: _Columns | None = None
    payments: dict[str, PaidIn] = {}
    other_rows = 0
    try:
        for cells in reader:
            if columns is None:
                columns = _Columns.find(cells)
                continue
            if not any(it.strip() for it in cells):
                continue
            payment = columns.read(cells, reader.line_num)
            if payment is None:
                other_rows += 1
            else:
                payments.setdefault(payment.receipt, payment)
            if len(payments) + other_rows > max_rows:
                raise _refused(f"more than {max_rows} rows: export a shorter period")
    except csv.Error as error:
        raise _refused(f"line {reader.line_num} is no CSV: {error}") from error
    if columns is None:
        raise _refused(
            "there is no row of titles that begins with `Receipt No`: download the statement from"
            " the M-PESA portal as CSV, or save the Excel file as CSV"
        )
    return Statement(sorted(payments.values(), key=lambda it: it.completed_at), other_rows)


@dataclass(frozen=True)
class _Columns:
    """Where a column stands, by its title without its unit: `paid in` for `Paid In (KSHs)`."""

    places: dict[str, int]

    @classmethod
    def find(cls, cells: Sequence[str]) -> _Columns | None:
        """The columns, if this is the row of titles."""
        titles = [re.sub(r"\(.*\)|\.", "", it).strip().casefold() for it in cells]
        if not titles or titles[0] != "receipt no":
            return None
        needed = ("receipt no", "completion time", "transaction status", "paid in")
        missing = [it for it in needed if it not in titles]
        if missing:
            raise _refused(f"there is no column {', '.join(f'`{it}`' for it in missing)}")
        return cls({title: place for place, title in enumerate(titles)})

    def read(self, cells: Sequence[str], line: int) -> PaidIn | None:
        """The payment of a row; None when it is none."""
        if self._cell(cells, "transaction status").casefold() != _COMPLETED:
            return None
        paid_in = self._cell(cells, "paid in")
        # The other account of a move has a negative amount here, in the older export.
        if not paid_in or paid_in.startswith("-") or not paid_in.strip("0.,"):
            return None
        receipt = self._cell(cells, "receipt no").upper()
        if not _RECEIPT.match(receipt):
            raise _refused(f"line {line}: the receipt number is not letters and digits")
        if not _AMOUNT.match(paid_in):
            raise _refused(f"line {line}: the amount paid in is not a number")
        details = self._cell(cells, "details")
        account = _ACCOUNT.search(details)
        return PaidIn(
            receipt,
            _parse_time(self._cell(cells, "completion time"), line),
            Decimal(paid_in.replace(",", "")),
            _find_payer(f"{self._cell(cells, 'other party info')} {details}"),
            self._cell(cells, "a/c no") or (account[1].strip() if account else None),
        )

    def _cell(self, cells: Sequence[str], title: str) -> str:
        place = self.places.get(title)
        if place is None or place >= len(cells):
            return ""
        # A spreadsheet saves numbers that are text with an apostrophe in front.
        return cells[place].strip().removeprefix("'")[:MAX_CELL_LENGTH]


def _parse_time(text: str, line: int) -> datetime:
    for form in _TIMES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=NAIROBI).astimezone(UTC)
        except ValueError:
            continue
    raise _refused(f"line {line}: the completion time is not DD/MM/YYYY HH:MM:SS")


def _find_payer(text: str) -> Payer | None:
    found = _PAYER.search(text)
    if found is None:
        return None
    begins, _, ends, whole = found.groups()
    return Payer(whole[:3], whole[-3:]) if whole else Payer(begins, ends)


def _refused(sentence: str) -> InvalidInputError:
    return InvalidInputError.of("statement", sentence)

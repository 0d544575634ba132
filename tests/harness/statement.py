"""M-PESA statements, as the organisation portal exports them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

NEW_TITLES = (
    "Receipt No",
    "Completion Time",
    "Details",
    "Transaction Status",
    "Paid In (KSHs)",
    "Withdrawn (KSHs)",
    "Balance (KSHs)",
)


def portal_csv(debits: Sequence[dict[str, Any]]) -> str:
    """The newer export, newest first, of a simulator's ledger. A charge goes with each payment."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(NEW_TITLES)
    for debit in reversed(debits):
        at = _nairobi(debit["at"])
        payer = f"{debit['phone'][:4]}****{debit['phone'][-3:]}"
        details = f"Pay Bill Online from {payer} - JANE DOE Acc. INV1"
        amount = f"{int(float(debit['amount'])):,}.00"
        receipt = debit["receipt"]
        rows.writerow([receipt, at, "Pay Bill Charge", "Completed", "", "-5.00", "1,000.00"])
        rows.writerow([receipt, at, details, "Completed", amount, "", "1,005.00"])
    return out.getvalue()


def _nairobi(at: str) -> str:
    there = datetime.fromisoformat(at) + timedelta(hours=3)
    return f"{there:%d/%m/%Y %H:%M:%S}"

"""Compare an M-PESA statement with the database: which payments of it need an operator.

After a restore the database has forgotten payments that were made since the backup, and so have
processes that started afterwards. Safaricom has not.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mpesa_gateway.domain.callback import CallbackUnreadableError, parse_stk_callback
from mpesa_gateway.domain.statement import PaidIn, Statement
from mpesa_gateway.store import recovery, statements
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.store.statements import StoredBody

# Receipts of one query.
BATCH = 1000


class Finding(StrEnum):
    """What the database holds of a payment of the statement that it does not have whole."""

    MISSING = "missing"
    TOLD = "told"
    CANDIDATE = "candidate"
    CALLBACK = "callback"
    AMOUNT = "amount"


@dataclass(frozen=True)
class OpenLine:
    """A payment of the statement that an operator has to look at, and what to do.

    `payments` are the payments of the database that it may be.
    """

    paid: PaidIn
    finding: Finding
    todo: str
    payments: Sequence[uuid.UUID] = ()


@dataclass(frozen=True)
class Comparison:
    """How many payments of the statement the database has, and each of the others."""

    matched: int
    orphans: int
    other_rows: int
    open_lines: list[OpenLine]


def compare(conn: Connection, statement: Statement) -> Comparison:
    """Look for each payment of the statement: as a payment, as a conflict, as an orphan."""
    unapplied = _receipts_of_unapplied(conn)
    matched = orphans = 0
    open_lines: list[OpenLine] = []
    for start in range(0, len(statement.payments), BATCH):
        batch = statement.payments[start : start + BATCH]
        receipts = [it.receipt for it in batch]
        known = {it.receipt: it for it in statements.list_known(conn, receipts)}
        told = recovery.list_told(conn, receipts)
        for paid in batch:
            row, callback = known.get(paid.receipt), unapplied.get(paid.receipt)
            if row is not None and row.amount in (None, paid.amount):
                matched += 1
            elif row is not None:
                open_lines.append(_of_another_amount(paid, row.payment))
            elif callback is not None and callback.outcome == "orphan":
                orphans += 1
            elif callback is not None:
                open_lines.append(_with_callback(paid, callback))
            else:
                open_lines.append(_without_trace(conn, paid, told.get(paid.receipt)))
    return Comparison(matched, orphans, statement.other_rows, open_lines)


def _receipts_of_unapplied(conn: Connection) -> dict[str, StoredBody]:
    found = {}
    for stored in statements.list_unapplied(conn):
        try:
            callback = parse_stk_callback(stored.body, stored.content_encoding)
        except CallbackUnreadableError:
            continue
        if callback.receipt is not None:
            found[callback.receipt.upper()] = stored
    return found


def _of_another_amount(paid: PaidIn, payment: uuid.UUID) -> OpenLine:
    todo = f"the payment has another amount: mpesa-gateway transactions show {payment}"
    return OpenLine(paid, Finding.AMOUNT, todo, [payment])


def _with_callback(paid: PaidIn, callback: StoredBody) -> OpenLine:
    todo = f"its callback was not applied: mpesa-gateway callbacks show {callback.id}"
    payments = [] if callback.payment is None else [callback.payment]
    return OpenLine(paid, Finding.CALLBACK, todo, payments)


def _without_trace(conn: Connection, paid: PaidIn, told: str | None) -> OpenLine:
    phone_like = "%" if paid.payer is None else f"{paid.payer.begins}%{paid.payer.ends}"
    found = statements.list_candidates(conn, paid.amount, phone_like, paid.completed_at)
    payments = [it.payment for it in found]
    if told is not None:
        todo = f"{told} was told that it is paid, and the payment is not here: deliver by hand"
        return OpenLine(paid, Finding.TOLD, todo, payments)
    if not found:
        todo = "no payment has it: deliver or refund by hand, unless it was not asked for by us"
        return OpenLine(paid, Finding.MISSING, todo)
    if len(found) > 1:
        todo = "several payments may be it: compare, then mpesa-gateway transactions resolve one"
        return OpenLine(paid, Finding.CANDIDATE, todo, payments)
    status = " --status completed" if found[0].status == "PENDING" else ""
    todo = (
        f"it may be this payment: mpesa-gateway transactions resolve {payments[0]}{status}"
        f" --receipt {paid.receipt} --by YOUR_NAME --reason WHY"
    )
    return OpenLine(paid, Finding.CANDIDATE, todo, payments)

"""One callback and its payment, in one database transaction: who is meant, and what it does."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mpesa_gateway.domain.callback import (
    CallbackUnreadableError,
    StkCallback,
    parse_stk_callback,
)
from mpesa_gateway.domain.delivery import WebhookType
from mpesa_gateway.domain.merchant import is_allowed
from mpesa_gateway.domain.results import meaning_of
from mpesa_gateway.domain.settlement import QUARANTINED, Settlement, Verdict, settle
from mpesa_gateway.domain.transaction import Ending, Status, Transaction
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store import callbacks, events, payment_keys, transactions
from mpesa_gateway.store.callbacks import Callback
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.telemetry import tracing
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases.conflicts import Contradiction, record_conflict
from mpesa_gateway.usecases.finalize import Effects, end_transaction, write_delivery
from mpesa_gateway.usecases.pushes import learn_checkout_request_id

LOGGER = get_logger(__name__)

WRONG_AMOUNT_ATTENTION = (
    "Safaricom reported this payment with another amount. Compare it with the M-PESA statement;"
    " the callback is in quarantine."
)
RECEIPT_REUSED_ATTENTION = (
    "Safaricom reported this payment with a receipt that belongs to another transaction. Compare"
    " both with the M-PESA statement; the callback is in quarantine."
)
CONTRADICTED_ATTENTION = (
    "Safaricom reported this payment as paid, without the details that prove it, and later as"
    " failed. Compare it with the M-PESA statement."
)


@dataclass(frozen=True)
class Rules:
    """Who may settle what, and how soon Safaricom is asked about what is not believed yet."""

    merchants: Callable[[], Snapshot]
    token_required: bool
    first_query_after: timedelta


@dataclass(frozen=True)
class Done:
    """What becomes of the inbox row."""

    state: str
    outcome: str
    transaction: int | None = None
    checkout_request_id: str | None = None


@dataclass
class Application:
    """Applies one callback. The caller owns the database transaction, and counts the effects."""

    conn: Connection
    rules: Rules
    callback: Callback
    now: datetime
    effects: Effects = field(default_factory=Effects)

    def apply(self) -> Done:
        """Do what the callback asks for, and tell what becomes of its row."""
        try:
            said = parse_stk_callback(self.callback.body, self.callback.content_encoding)
        except CallbackUnreadableError as error:
            if self.callback.transaction_id is not None:
                self._tell(self.callback.transaction_id, "unreadable", why=str(error))
            return Done("QUARANTINED", "unreadable")
        if self.callback.orphan_of is not None:
            return self._adopt(self.callback.orphan_of, said)
        if self.callback.by_token:
            return self._apply_by_token(said)
        return self._apply_by_id(said)

    def _apply_by_token(self, said: StkCallback) -> Done:
        assert self.callback.transaction_id is not None
        # The id before the row, as `record_outcome` does, so that the two never deadlock.
        transaction = transactions.lock_with_checkout_request_id(
            self.conn, self.callback.transaction_id, said.checkout_request_id
        )
        tracing.follow(transaction.id, transaction.traceparent)
        return self._settle(transaction, said)

    def _adopt(self, orphan_of: uuid.UUID, said: StkCallback) -> Done:
        """An orphan: its token was good, but only its payment tells which addresses may send it."""
        found = transactions.find(self.conn, None, orphan_of)
        if found is None:
            return _quarantine("orphan", said)
        transaction = transactions.lock_with_checkout_request_id(
            self.conn, found.row, said.checkout_request_id
        )
        return self._settle_from_source(transaction, said)

    def _settle_from_source(self, transaction: Transaction, said: StkCallback) -> Done:
        """Settle what the merchant's own list has not been asked about yet."""
        tracing.follow(transaction.id, transaction.traceparent)
        if not self._is_source_allowed(transaction) and self.callback.requeued_by is None:
            self._tell(transaction.row, "source_not_allowed")
            return _quarantine("source_not_allowed", said, transaction.row)
        return self._settle(transaction, said)

    def _apply_by_id(self, said: StkCallback) -> Done:
        """The plain path: find the transaction by Safaricom's id, and check who may speak of it."""
        checkout_request_id = said.checkout_request_id
        if self.rules.token_required and self.callback.requeued_by is None:
            return _quarantine("token_required", said)
        transactions.lock_checkout_request_id(self.conn, checkout_request_id)
        row = transactions.find_row_by_checkout_request_id(self.conn, checkout_request_id)
        if row is None:
            # It may have come before its push's answer; learning the id offers it again.
            return _quarantine("unmatched", said)
        return self._settle_from_source(transactions.lock(self.conn, row), said)

    def _is_source_allowed(self, transaction: Transaction) -> bool:
        merchant = self.rules.merchants().find(transaction.merchant)
        if merchant is None or self.callback.source is None:
            return merchant is not None and not merchant.allowed_networks
        address = ipaddress.ip_address(self.callback.source)
        return is_allowed(address, merchant.allowed_networks)

    def _settle(self, transaction: Transaction, said: StkCallback) -> Done:
        settlement = settle(transaction, said)
        if settlement.verdict in QUARANTINED:
            return self._quarantine_for(transaction, settlement.verdict, said)
        if said.receipt is not None:
            owner = payment_keys.find_receipt_owner(self.conn, said.receipt)
            if owner not in (None, transaction.row):
                self._doubt(transaction, RECEIPT_REUSED_ATTENTION)
                self._tell(transaction.row, "receipt_reused")
                return _quarantine("receipt_reused", said, transaction.row)
        if transaction.checkout_request_id is None and not self._learn_id(transaction, said):
            return self._quarantine_for(transaction, Verdict.MISMATCH, said)
        return self._carry_out(transaction, said, settlement)

    def _learn_id(self, transaction: Transaction, said: StkCallback) -> bool:
        return learn_checkout_request_id(
            self.conn, transaction, said.checkout_request_id, self.now, self.effects
        )

    def _quarantine_for(
        self, transaction: Transaction, verdict: Verdict, said: StkCallback
    ) -> Done:
        if verdict is Verdict.WRONG_AMOUNT:
            self._doubt(transaction, WRONG_AMOUNT_ATTENTION)
        self._tell(transaction.row, verdict)
        return _quarantine(verdict, said, transaction.row)

    def _carry_out(
        self, transaction: Transaction, said: StkCallback, settlement: Settlement
    ) -> Done:
        verdict = settlement.verdict
        if verdict is Verdict.CONFIRM:
            return self._hold_payment(transaction, said)
        if verdict is Verdict.UNCONFIRMED:
            return self._hold_failure(transaction, said)
        if verdict is Verdict.FAIL and self._claims_payment(transaction):
            self._doubt(transaction, CONTRADICTED_ATTENTION)
            self._tell(transaction.row, "contradicts_itself", code=said.result_code)
            return _quarantine("contradicts_itself", said, transaction.row)
        if settlement.conflict is not None:
            verdict = self._contradict(transaction, said, settlement)
        elif verdict is Verdict.FILL_IN:
            self._fill_in(transaction, settlement.ending)
        elif settlement.ending is not None:
            self._end(transaction, settlement.ending)
        return self._done("APPLIED", verdict, transaction, said)

    def _claims_payment(self, transaction: Transaction) -> bool:
        held = callbacks.find_held(self.conn, transaction.row)
        return held is not None and held.claims_payment

    def _hold_payment(self, transaction: Transaction, said: StkCallback) -> Done:
        """It claims a payment and does not prove it, or it contradicts itself: a query decides."""
        detail = {"receipt": said.receipt, "code": None if said.paid else said.result_code or None}
        self._tell(transaction.row, "paid_unproven", **detail)
        self._ask_at(transaction, self.now)
        return self._done("HELD", Verdict.CONFIRM, transaction, said)

    def _hold_failure(self, transaction: Transaction, said: StkCallback) -> Done:
        """A failure that may be none: a query has to deny it nothing before it counts."""
        meaning = meaning_of(said.result_code)
        self._tell(transaction.row, "failed_unconfirmed", code=said.result_code)
        wait = timedelta(0) if meaning.recognised else self.rules.first_query_after
        self._ask_at(transaction, self.now + wait)
        return self._done("HELD", Verdict.UNCONFIRMED, transaction, said)

    def _ask_at(self, transaction: Transaction, at: datetime) -> None:
        transactions.ask_at(self.conn, transaction.row, at)
        if at <= self.now:
            self.effects.work.append(Work(WorkKind.QUERY, transaction.row))

    def _end(self, transaction: Transaction, ending: Ending) -> None:
        end_transaction(
            self.conn,
            transaction,
            ending,
            source="callback",
            now=self.now,
            effects=self.effects,
        )

    def _fill_in(self, transaction: Transaction, ending: Ending | None) -> None:
        """A completed transaction learns its receipt."""
        assert ending is not None
        if transactions.fill_in(self.conn, transaction.row, ending, self.now):
            self._tell(transaction.row, "filled_in", receipt=ending.receipt)
            filled = transactions.lock(self.conn, transaction.row)
            write_delivery(
                self.conn, filled, WebhookType.UPDATED, now=self.now, effects=self.effects
            )

    def _contradict(
        self, transaction: Transaction, said: StkCallback, settlement: Settlement
    ) -> Verdict:
        assert settlement.conflict is not None
        contradiction = Contradiction(
            settlement.conflict,
            "callback",
            callback_id=self.callback.id,
            result_code=said.result_code or None,
            receipt=said.receipt,
            metadata=said.metadata(),
        )
        is_new = record_conflict(
            self.conn, transaction, contradiction, now=self.now, effects=self.effects
        )
        return Verdict.CONFLICT if is_new else Verdict.DUPLICATE

    def _doubt(self, transaction: Transaction, sentence: str) -> None:
        """Ask for an operator. A query could only repeat what is doubted, so it ends too."""
        if transaction.status is Status.PENDING:
            transactions.set_attention(
                self.conn, transaction.row, sentence, in_doubt=True, now=self.now
            )

    def _tell(self, row: int, kind: str, **detail: str | None) -> None:
        events.append(self.conn, row, "callback", kind, self.now, **detail)

    def _done(self, state: str, outcome: str, transaction: Transaction, said: StkCallback) -> Done:
        return Done(state, outcome, transaction.row, said.checkout_request_id)


def _quarantine(reason: str, said: StkCallback, transaction: int | None = None) -> Done:
    return Done("QUARANTINED", reason, transaction, said.checkout_request_id)

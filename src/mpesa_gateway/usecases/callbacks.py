"""Applies a callback from the inbox: one database transaction from row to webhook delivery.

No lease: a crash rolls everything back and the sweeper offers the row again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

from mpesa_gateway import metrics, tracing
from mpesa_gateway.domain.callback import (
    CallbackUnreadableError,
    StkCallback,
    parse_stk_callback,
)
from mpesa_gateway.domain.delivery import WebhookType
from mpesa_gateway.domain.merchant import is_allowed
from mpesa_gateway.domain.results import meaning_of
from mpesa_gateway.domain.settlement import QUARANTINED, Settlement, Verdict, settle
from mpesa_gateway.domain.transaction import Status, Transaction
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.log import get_logger
from mpesa_gateway.merchants import Snapshot
from mpesa_gateway.store import callbacks, events, transactions
from mpesa_gateway.store.callbacks import Callback
from mpesa_gateway.store.pool import Connection, Pool, UniqueViolation
from mpesa_gateway.usecases.endings import Effects, end_transaction, write_delivery
from mpesa_gateway.usecases.pushes import learn_checkout_request_id

LOGGER = get_logger(__name__)

# A callback that makes our own code fail is tried this often, then put aside for a person.
POISON_AFTER = 5
POISON_RETRY = timedelta(seconds=5)

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
class _Done:
    """What becomes of the inbox row."""

    state: str
    outcome: str
    transaction: int | None = None


def _quarantine(reason: str, transaction: int | None = None) -> _Done:
    return _Done("QUARANTINED", reason, transaction)


@dataclass(frozen=True)
class Callbacks:
    """The collaborators and settings that applying a callback needs."""

    pool: Pool
    merchants: Callable[[], Snapshot]
    clock: Callable[[], datetime]
    token_required: bool

    def apply(self, callback_id: int) -> Effects:
        """Apply a callback, if it still waits. Safe to call at any time, by anybody."""
        try:
            return self._apply_once(callback_id)
        except UniqueViolation:
            # Its receipt was committed for another transaction just now: look again and see it.
            return self._apply_once(callback_id)

    def count_failure(self, callback_id: int) -> None:
        """Our own code failed on it: later again, and in the end into quarantine."""
        now = self.clock()
        with self.pool.connection("callback.count_failure") as conn:
            poisoned = callbacks.count_failure(
                conn, callback_id, retry_at=now + POISON_RETRY, poison_after=POISON_AFTER, now=now
            )
        if poisoned:
            metrics.callbacks_total.labels("quarantined").inc()
            LOGGER.error("callback put into quarantine", callback=callback_id)

    def _apply_once(self, callback_id: int) -> Effects:
        effects = Effects()
        now, started_at_ns = self.clock(), tracing.started_at_ns()
        # The span ends after the commit, yet its parent is in the row that the commit is about.
        with ExitStack() as stack:
            with self.pool.transaction("callback.apply") as conn:
                callback = callbacks.lock_received(conn, callback_id)
                if callback is None:
                    return effects
                span = stack.enter_context(_span(callback, started_at_ns))
                parsed, done = self._process(conn, callback, now, effects)
                callbacks.save_outcome(
                    conn,
                    callback.id,
                    done.state,
                    done.outcome,
                    transaction=done.transaction,
                    checkout_request_id=parsed.checkout_request_id if parsed else None,
                    now=now,
                )
            effects.count()
            span.set(state=done.state, outcome=done.outcome)
            self._observe(callback, done)
        return effects

    def _observe(self, callback: Callback, done: _Done) -> None:
        lag_s = max((self.clock() - callback.received_at).total_seconds(), 0.0)
        metrics.callback_lag_seconds.observe(lag_s, tracing.exemplar())
        label = "quarantined" if done.state == "QUARANTINED" else done.outcome
        metrics.callbacks_total.labels(label).inc()
        log = LOGGER.warning if done.state == "QUARANTINED" else LOGGER.info
        log("callback applied", callback=callback.id, state=done.state, outcome=done.outcome)

    def _process(
        self, conn: Connection, callback: Callback, now: datetime, effects: Effects
    ) -> tuple[StkCallback | None, _Done]:
        try:
            parsed = parse_stk_callback(callback.body)
        except CallbackUnreadableError as error:
            if callback.transaction_id is not None:
                events.append(
                    conn, callback.transaction_id, "callback", "unreadable", now, why=str(error)
                )
            return None, _quarantine("unreadable")
        if callback.by_token:
            assert callback.transaction_id is not None
            # The id before the row, as `record_outcome` does, so that the two never wait in a ring.
            transaction = transactions.lock_with_checkout_request_id(
                conn, callback.transaction_id, parsed.checkout_request_id
            )
            tracing.follow(transaction.id, transaction.traceparent)
            return parsed, self._settle(conn, callback, transaction, parsed, now, effects)
        if self.token_required and callback.requeued_by is None:
            return parsed, _quarantine("token_required")
        return parsed, self._match(conn, callback, parsed, now, effects)

    def _match(
        self,
        conn: Connection,
        callback: Callback,
        parsed: StkCallback,
        now: datetime,
        effects: Effects,
    ) -> _Done:
        """The plain path: find the transaction by Safaricom's id, and check who may speak of it."""
        transactions.lock_checkout_request_id(conn, parsed.checkout_request_id)
        row = transactions.find_row_by_checkout_request_id(conn, parsed.checkout_request_id)
        if row is None:
            # It may have come before its push's answer; learning the id offers it again.
            return _quarantine("unmatched")
        transaction = transactions.lock(conn, row)
        tracing.follow(transaction.id, transaction.traceparent)
        if not self._source_allowed(callback, transaction) and callback.requeued_by is None:
            events.append(conn, row, "callback", "source_not_allowed", now)
            return _quarantine("source_not_allowed", row)
        return self._settle(conn, callback, transaction, parsed, now, effects)

    def _source_allowed(self, callback: Callback, transaction: Transaction) -> bool:
        merchant = self.merchants().find(transaction.merchant)
        if merchant is None or callback.source is None:
            return merchant is not None and not merchant.allowed_networks
        return is_allowed(ipaddress.ip_address(callback.source), merchant.allowed_networks)

    def _settle(
        self,
        conn: Connection,
        callback: Callback,
        transaction: Transaction,
        parsed: StkCallback,
        now: datetime,
        effects: Effects,
    ) -> _Done:
        settlement = settle(transaction, parsed)
        if settlement.verdict in QUARANTINED:
            return self._set_aside(conn, transaction, settlement.verdict, now)
        if parsed.paid and parsed.receipt is not None:
            owner = transactions.find_row_by_receipt(conn, parsed.receipt)
            if owner not in (None, transaction.row):
                _ask_person(conn, transaction, RECEIPT_REUSED_ATTENTION, now)
                events.append(conn, transaction.row, "callback", "receipt_reused", now)
                return _quarantine("receipt_reused", transaction.row)
        if transaction.checkout_request_id is None:
            learned = learn_checkout_request_id(
                conn, transaction, parsed.checkout_request_id, now, effects
            )
            if not learned:
                return self._set_aside(conn, transaction, Verdict.MISMATCH, now)
        return self._carry_out(conn, callback, transaction, parsed, settlement, now, effects)

    def _set_aside(
        self, conn: Connection, transaction: Transaction, verdict: Verdict, now: datetime
    ) -> _Done:
        if verdict is Verdict.WRONG_AMOUNT:
            _ask_person(conn, transaction, WRONG_AMOUNT_ATTENTION, now)
        events.append(conn, transaction.row, "callback", verdict, now)
        return _quarantine(verdict, transaction.row)

    def _carry_out(
        self,
        conn: Connection,
        callback: Callback,
        transaction: Transaction,
        parsed: StkCallback,
        settlement: Settlement,
        now: datetime,
        effects: Effects,
    ) -> _Done:
        verdict, row = settlement.verdict, transaction.row
        if verdict is Verdict.FAIL and callbacks.find_held_body(conn, row) is not None:
            _ask_person(conn, transaction, CONTRADICTED_ATTENTION, now)
            events.append(conn, row, "callback", "contradicts_itself", now, code=parsed.result_code)
            return _quarantine("contradicts_itself", row)
        if verdict in (Verdict.COMPLETE, Verdict.FAIL):
            assert settlement.ending is not None
            end_transaction(
                conn, transaction, settlement.ending, source="callback", now=now, effects=effects
            )
            if not meaning_of(parsed.result_code).recognised:
                LOGGER.warning("unrecognised result code", code=parsed.result_code)
        elif verdict is Verdict.CONFIRM:
            events.append(conn, row, "callback", "paid_unproven", now, receipt=parsed.receipt)
            transactions.ask_at(conn, row, now)
            effects.work.append(Work(WorkKind.QUERY, row))
            return _Done("HELD", verdict, row)
        elif verdict is Verdict.FILL_IN:
            self._fill_in(conn, transaction, settlement, now, effects)
        elif verdict is Verdict.CONFLICT:
            return self._conflict(conn, callback, transaction, parsed, settlement, now, effects)
        return _Done("APPLIED", verdict, row)

    def _fill_in(
        self,
        conn: Connection,
        transaction: Transaction,
        settlement: Settlement,
        now: datetime,
        effects: Effects,
    ) -> None:
        """A completed transaction learns its receipt."""
        ending = settlement.ending
        assert ending is not None
        if transactions.fill_in(conn, transaction.row, ending, now):
            events.append(
                conn, transaction.row, "callback", "filled_in", now, receipt=ending.receipt
            )
            filled = transactions.lock(conn, transaction.row)
            write_delivery(conn, filled, WebhookType.UPDATED, now=now, effects=effects)

    def _conflict(
        self,
        conn: Connection,
        callback: Callback,
        transaction: Transaction,
        parsed: StkCallback,
        settlement: Settlement,
        now: datetime,
        effects: Effects,
    ) -> _Done:
        """A contradiction moves no state: record it, and tell of money that was taken."""
        kind = settlement.conflict
        assert kind is not None
        conflict = events.open_conflict(
            conn,
            transaction.row,
            callback.id,
            kind,
            receipt=parsed.receipt,
            result_code=parsed.result_code,
            now=now,
        )
        if conflict is None:
            return _Done("APPLIED", Verdict.DUPLICATE, transaction.row)
        events.append(
            conn,
            transaction.row,
            "callback",
            "conflict",
            now,
            conflict=kind,
            code=parsed.result_code,
            receipt=parsed.receipt,
        )
        effects.conflicts.append(kind)
        LOGGER.error("conflict", conflict=kind)
        if settlement.money_taken:
            detail = {"kind": kind, "receipt": parsed.receipt, "metadata": parsed.metadata()}
            write_delivery(
                conn,
                transaction,
                WebhookType.CONFLICT,
                now=now,
                effects=effects,
                conflict=conflict,
                conflict_detail=detail,
            )
        return _Done("APPLIED", Verdict.CONFLICT, transaction.row)


def _span(callback: Callback, started_at_ns: int | None) -> tracing.Span:
    return tracing.span(
        "callback apply",
        parent=callback.traceparent,
        kind="consumer",
        started_at_ns=started_at_ns,
        callback=callback.id,
    )


def _ask_person(conn: Connection, transaction: Transaction, sentence: str, now: datetime) -> None:
    """A query could only repeat what is doubted, so the asking stops too."""
    if transaction.status is Status.PENDING:
        transactions.set_attention(conn, transaction.row, sentence, in_doubt=True, now=now)

"""Asks Safaricom after silent transactions (STK query), within the cluster's budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mpesa_gateway import metrics, tracing
from mpesa_gateway.clients.budget import Budgets
from mpesa_gateway.clients.daraja import Daraja
from mpesa_gateway.clients.token import (
    TokenCache,
    TokenRefusedError,
    TokenUnavailableError,
    app_id,
)
from mpesa_gateway.domain.callback import parse_stk_callback
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.query import QueryClass, QueryOutcome, judge_query
from mpesa_gateway.domain.settlement import completed, failed
from mpesa_gateway.domain.transaction import FINAL, Transaction, next_query_at
from mpesa_gateway.log import get_logger
from mpesa_gateway.merchants import Snapshot
from mpesa_gateway.store import callbacks, events, queries, transactions
from mpesa_gateway.store.pool import Connection, Pool, UniqueViolation
from mpesa_gateway.usecases.callbacks import CONTRADICTED_ATTENTION
from mpesa_gateway.usecases.endings import Effects, end_transaction

LOGGER = get_logger(__name__)

# The sandbox answers 429 to a second call in the same moment (measured, 2026).
BURST = 1
SLOW_DOWN_WAIT = timedelta(seconds=60)
# A callback is in the inbox: it knows more than a query would tell.
CALLBACK_WAIT = timedelta(seconds=5)
MERCHANT_WAIT = timedelta(minutes=1)
# Those that the budget turned away come back spread out, not all at once.
TURNED_AWAY_WAIT = timedelta(seconds=5)

UNKNOWN_PUSH_ATTENTION = (
    "Safaricom never answered the payment request and no callback came, so nothing can be asked"
    " about it. Look for the payment in the M-PESA statement."
)
WINDOW_ATTENTION = (
    "Safaricom has given no result within 24 hours. Look for the payment in the M-PESA statement."
)


@dataclass(frozen=True)
class _Claimed:
    """A transaction to ask about, and the claim that fences the asking."""

    transaction: Transaction
    checkout_request_id: str
    claim: int


@dataclass(frozen=True)
class Queries:
    """The collaborators and settings that asking needs."""

    pool: Pool
    daraja: Daraja
    tokens: TokenCache
    budgets: Budgets
    merchants: Callable[[], Snapshot]
    clock: Callable[[], datetime]
    per_minute: int
    schedule: tuple[timedelta, ...]
    lease: timedelta

    def ask(self, row: int) -> Effects:
        """Ask about a transaction, if it is due. Safe to call at any time, by anybody."""
        claimed = self._claim(row)
        if claimed is None:
            return Effects()
        with tracing.span("query", parent=claimed.transaction.traceparent, kind="consumer"):
            tracing.follow(claimed.transaction.id, claimed.transaction.traceparent)
            return self._ask(row, claimed)

    def _ask(self, row: int, claimed: _Claimed) -> Effects:
        merchant = self.merchants().find(claimed.transaction.merchant)
        if merchant is None:
            self._postpone(row, MERCHANT_WAIT)
            return Effects()
        grant = self.budgets.take(f"query:{app_id(merchant)}", self.per_minute, burst=BURST)
        metrics.daraja_budget_remaining.labels("query").set(grant.left)
        if not grant.granted:
            metrics.daraja_budget_refused_total.labels("query").inc()
            self._postpone(row, max(timedelta(seconds=grant.wait_s), TURNED_AWAY_WAIT))
            return Effects()
        outcome = self._query(merchant, claimed.checkout_request_id)
        return self._record(claimed, outcome)

    def _claim(self, row: int) -> _Claimed | None:
        now = self.clock()
        with self.pool.transaction("query.claim") as conn:
            claim = queries.claim(conn, row, lease_until=now + self.lease, now=now)
            if claim is None:
                return None
            transaction = transactions.lock(conn, row)
            tracing.follow(transaction.id, transaction.traceparent)
            if callbacks.has_unapplied(conn, row):
                queries.postpone(conn, row, now + CALLBACK_WAIT)
                return None
            if transaction.checkout_request_id is None:
                self._escalate(conn, transaction, UNKNOWN_PUSH_ATTENTION, now)
                return None
            return _Claimed(transaction, transaction.checkout_request_id, claim)

    def _escalate(
        self,
        conn: Connection,
        transaction: Transaction,
        sentence: str,
        now: datetime,
        *,
        in_doubt: bool = False,
    ) -> None:
        """What stays open is escalated, not invented."""
        transactions.set_attention(conn, transaction.row, sentence, in_doubt=in_doubt, now=now)
        events.append(conn, transaction.row, "gateway", "escalated", now)
        LOGGER.error("transaction needs a person", transaction_id=str(transaction.id))

    def _postpone(self, row: int, wait: timedelta) -> None:
        with self.pool.connection("query.postpone") as conn:
            queries.postpone(conn, row, self.clock() + wait)

    def _query(self, merchant: Merchant, checkout_request_id: str) -> QueryOutcome:
        outcome = QueryOutcome(QueryClass.NO_INFORMATION)
        for _ in range(2):
            try:
                token = self.tokens.get(merchant)
            except (TokenRefusedError, TokenUnavailableError) as error:
                return QueryOutcome(QueryClass.NO_INFORMATION, None, f"no token: {error}")
            outcome = self.daraja.query(merchant, checkout_request_id, token)
            if outcome.kind is not QueryClass.TOKEN_REJECTED:
                break
            self.tokens.reject(merchant, token)
        return outcome

    def _record(self, claimed: _Claimed, outcome: QueryOutcome) -> Effects:
        try:
            return self._record_once(claimed, outcome, with_receipt=True)
        except UniqueViolation:
            # The held callback's receipt is another transaction's: paid is believed, it is not.
            return self._record_once(claimed, outcome, with_receipt=False)

    def _record_once(
        self, claimed: _Claimed, outcome: QueryOutcome, *, with_receipt: bool
    ) -> Effects:
        effects, now = Effects(), self.clock()
        row = claimed.transaction.row
        with self.pool.transaction("query.record") as conn:
            transaction = transactions.lock(conn, row)
            if not queries.is_ours(conn, row, claimed.claim):
                metrics.stale_completions_total.labels("query").inc()
                return effects
            events.append(
                conn,
                row,
                "query",
                # Not `failed`: that is the end, and a query alone ends nothing.
                f"said_{outcome.kind.lower()}",
                now,
                code=outcome.code,
                message=outcome.message,
            )
            verdict = judge_query(outcome, transaction.provisional_code)
            if transaction.in_doubt or transaction.status in FINAL:
                # A callback came while Safaricom was being asked: it has the last word.
                return effects
            if verdict.complete:
                held = callbacks.find_held_body(conn, row) if with_receipt else None
                parsed = parse_stk_callback(held) if held is not None else None
                ending = completed(parsed, settled_by="query")
                end_transaction(conn, transaction, ending, source="query", now=now, effects=effects)
            elif verdict.fail:
                self._fail(conn, transaction, outcome, now, effects)
            else:
                self._ask_again(conn, transaction, outcome, verdict.provisional_code, now)
        effects.count()
        LOGGER.info("transaction asked after", answer=outcome.kind.lower(), code=outcome.code)
        return effects

    def _fail(
        self,
        conn: Connection,
        transaction: Transaction,
        outcome: QueryOutcome,
        now: datetime,
        effects: Effects,
    ) -> None:
        if callbacks.find_held_body(conn, transaction.row) is not None:
            self._escalate(conn, transaction, CONTRADICTED_ATTENTION, now, in_doubt=True)
            return
        assert outcome.code is not None
        ending = failed(outcome.code, outcome.message, settled_by="query")
        end_transaction(conn, transaction, ending, source="query", now=now, effects=effects)

    def _ask_again(
        self,
        conn: Connection,
        transaction: Transaction,
        outcome: QueryOutcome,
        provisional_code: str | None,
        now: datetime,
    ) -> None:
        if outcome.kind is QueryClass.SLOW_DOWN:
            queries.postpone(conn, transaction.row, now + SLOW_DOWN_WAIT)
            return
        made = transaction.queries_made + 1
        at = next_query_at(made, self.schedule, transaction.created_at, now)
        queries.save_answer(
            conn,
            transaction.row,
            queries_made=made,
            provisional_code=provisional_code,
            next_query_at=at,
            now=now,
        )
        if at is None:
            self._escalate(conn, transaction, WINDOW_ATTENTION, now)

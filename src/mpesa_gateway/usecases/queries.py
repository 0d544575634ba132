"""Asks Safaricom after silent transactions (STK query), within the cluster's budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mpesa_gateway.clients.budget import Budgets
from mpesa_gateway.clients.caller import on_behalf_of
from mpesa_gateway.clients.daraja import Daraja
from mpesa_gateway.clients.token import (
    TokenCache,
    TokenRefusedError,
    TokenUnavailableError,
    app_id,
)
from mpesa_gateway.domain.callback import StkCallback, parse_stk_callback
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.query import (
    Asked,
    Known,
    QueryClass,
    QueryOutcome,
    QueryVerdict,
    judge_query,
)
from mpesa_gateway.domain.settlement import completed, failed
from mpesa_gateway.domain.transaction import (
    FINAL,
    Ending,
    Status,
    Transaction,
    next_query_at,
)
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store import callbacks, events, status_queries, transactions
from mpesa_gateway.store.callbacks import Held
from mpesa_gateway.store.pool import Connection, Pool, UniqueViolation
from mpesa_gateway.telemetry import metrics, tracing
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases.applications import CONTRADICTED_ATTENTION
from mpesa_gateway.usecases.finalize import Effects, end_transaction
from mpesa_gateway.usecases.room import Room

LOGGER = get_logger(__name__)

# Queries that wait for Safaricom at once; a merchant's base URL may be a server that never answers.
MOST_QUERIES = 8
# Answers that only a good token gets.
ANSWERED = {QueryClass.PAID, QueryClass.FAILED, QueryClass.IN_FLIGHT}
# Has the form of an id, and is nobody's.
NO_PAYMENT = Asked("ws_CO_010120000000000000000000")
# The sandbox answers 429 to a second call in the same moment (measured, 2026).
BURST = 1
SLOW_DOWN_WAIT = timedelta(seconds=60)
# A callback is in the inbox: it knows more than a query would tell.
CALLBACK_WAIT = timedelta(seconds=5)
MERCHANT_WAIT = timedelta(minutes=1)
# Those that the budget, or a merchant's share, turned away come back spread out, not all at once.
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
    asked: Asked
    claim: int
    at: datetime


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
    room: Room

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
        with self.room.enter(merchant.name) as entered, on_behalf_of(merchant.name):
            if not entered:
                self._postpone(row, TURNED_AWAY_WAIT)
                return Effects()
            return self._ask_within_budget(row, claimed, merchant)

    def _ask_within_budget(self, row: int, claimed: _Claimed, merchant: Merchant) -> Effects:
        grant = self.budgets.take(f"query:{app_id(merchant)}", self.per_minute, burst=BURST)
        metrics.daraja_budget_remaining.labels("query").set(grant.left)
        if not grant.granted:
            metrics.daraja_budget_refused_total.labels("query").inc()
            self._postpone(row, max(timedelta(seconds=grant.wait_s), TURNED_AWAY_WAIT))
            return Effects()
        outcome = self._query(merchant, claimed.asked)
        return self._record(claimed, outcome)

    def try_passkey(self, merchant: Merchant, token: str) -> QueryOutcome | None:
        """What Safaricom answers to a query about no payment; None when no query is left now."""
        grant = self.budgets.take(f"query:{app_id(merchant)}", self.per_minute, burst=BURST)
        if not grant.granted:
            return None
        return self.daraja.query(merchant, NO_PAYMENT, token)

    def _claim(self, row: int) -> _Claimed | None:
        now = self.clock()
        with self.pool.transaction("query.claim") as conn:
            claim = status_queries.claim(conn, row, lease_until=now + self.lease, now=now)
            if claim is None:
                return None
            transaction = transactions.lock(conn, row)
            tracing.follow(transaction.id, transaction.traceparent)
            if callbacks.has_unapplied(conn, row):
                status_queries.postpone(conn, row, now + CALLBACK_WAIT)
                return None
            if transaction.checkout_request_id is None:
                self._escalate(conn, transaction, UNKNOWN_PUSH_ATTENTION, now)
                return None
            asked = Asked(transaction.checkout_request_id, transaction.merchant_request_id)
            return _Claimed(transaction, asked, claim, now)

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
            status_queries.postpone(conn, row, self.clock() + wait)

    def _query(self, merchant: Merchant, asked: Asked) -> QueryOutcome:
        outcome = QueryOutcome(QueryClass.NO_INFORMATION)
        for _ in range(2):
            try:
                token = self.tokens.get(merchant)
            except (TokenRefusedError, TokenUnavailableError) as error:
                return QueryOutcome(QueryClass.NO_INFORMATION, None, f"no token: {error}")
            outcome = self.daraja.query(merchant, asked, token)
            if outcome.kind in ANSWERED:
                self.tokens.note_worked(merchant)
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
            if not status_queries.is_ours(conn, row, claimed.claim):
                metrics.stale_completions_total.labels("query").inc()
                return effects
            held = callbacks.find_held(conn, row)
            verdict = judge_query(outcome, _known(conn, claimed, transaction, held))
            _tell(conn, row, outcome, now)
            if transaction.in_doubt or transaction.status in FINAL:
                # A callback came while Safaricom was being asked: it has the last word.
                return effects
            ending = _ending(outcome, verdict, held, with_receipt=with_receipt)
            if ending is None:
                self._ask_again(conn, transaction, outcome, verdict, now)
            elif ending.status is Status.FAILED and held is not None and held.claims_payment:
                self._escalate(conn, transaction, CONTRADICTED_ATTENTION, now, in_doubt=True)
            else:
                end_transaction(
                    conn,
                    transaction,
                    ending,
                    source="callback" if verdict.believe_callback else "query",
                    now=now,
                    effects=effects,
                )
        effects.count()
        _log(outcome)
        return effects

    def _ask_again(
        self,
        conn: Connection,
        transaction: Transaction,
        outcome: QueryOutcome,
        verdict: QueryVerdict,
        now: datetime,
    ) -> None:
        if outcome.kind is QueryClass.SLOW_DOWN:
            status_queries.postpone(conn, transaction.row, now + SLOW_DOWN_WAIT)
            return
        made = transaction.queries_made + 1
        at = next_query_at(made, self.schedule, transaction.created_at, now)
        if verdict.is_early:
            at = max(transaction.prompt_until, now)
        status_queries.save_answer(
            conn,
            transaction.row,
            queries_made=made,
            provisional_code=verdict.provisional_code,
            next_query_at=at,
            now=now,
        )
        if at is None:
            self._escalate(conn, transaction, WINDOW_ATTENTION, now)


def _known(
    conn: Connection, claimed: _Claimed, transaction: Transaction, held: Held | None
) -> Known:
    """What is known of the transaction besides the answer."""
    is_prompt_open = claimed.at < transaction.prompt_until
    known = Known(transaction.provisional_code, is_prompt_open=is_prompt_open)
    if held is None:
        return known
    if held.claims_payment:
        return replace(known, is_claimed_paid=True)
    return replace(
        known,
        held_failure=_parse(held).result_code,
        silent_answers=events.count_silent_answers(conn, transaction.row, held.applied_at),
    )


def _ending(
    outcome: QueryOutcome, verdict: QueryVerdict, held: Held | None, *, with_receipt: bool
) -> Ending | None:
    """How the transaction ends, None when it does not."""
    said = _parse(held) if held is not None else None
    if verdict.complete:
        proof = said if said is not None and said.claims_payment and with_receipt else None
        return completed(proof, settled_by="query")
    if verdict.believe_callback:
        assert said is not None
        return failed(said.result_code, said.result_desc, settled_by="callback")
    if verdict.fail:
        assert outcome.code is not None
        return failed(outcome.code, outcome.message, settled_by="query")
    return None


def _parse(held: Held) -> StkCallback:
    """It was readable when it was held."""
    return parse_stk_callback(held.body, held.content_encoding)


def _tell(conn: Connection, row: int, outcome: QueryOutcome, now: datetime) -> None:
    events.append(
        conn,
        row,
        "query",
        # Not `failed`: that is the end, and a query alone ends nothing.
        f"said_{outcome.kind.lower()}",
        now,
        code=outcome.code,
        message=outcome.message,
        is_answer=outcome.is_answer or None,
    )


def _log(outcome: QueryOutcome) -> None:
    log = LOGGER.info
    if outcome.kind is QueryClass.OTHER_PAYMENT:
        log = LOGGER.warning
    log("transaction asked after", answer=outcome.kind.lower(), code=outcome.code)

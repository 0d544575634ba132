"""How a push ended: the outcome's commit, and the end of pushes whose process died."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from mpesa_gateway.domain.advice import advise
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.problem_details import problem
from mpesa_gateway.domain.push import BUSY_RETRY_S, PushClass, PushOutcome, not_sent, unknown
from mpesa_gateway.domain.results import PUSH_REASONS
from mpesa_gateway.domain.transaction import (
    FINAL,
    UNKNOWN_PUSH_PATIENCE,
    Ending,
    PushState,
    Status,
    Transaction,
)
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.store import callbacks, events, identity, transactions
from mpesa_gateway.store.pool import Connection, Pool, UniqueViolation, savepoint
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.telemetry.tracing import follow
from mpesa_gateway.usecases.finalize import Effects, end_transaction

LOGGER = get_logger(__name__)

_STATES = {
    PushClass.ACCEPTED: PushState.ACCEPTED,
    PushClass.REFUSED: PushState.REFUSED,
    PushClass.NOT_SENT: PushState.NOT_SENT,
    PushClass.TOKEN_REJECTED: PushState.REFUSED,
    PushClass.UNKNOWN: PushState.UNKNOWN,
}


@dataclass(frozen=True)
class PushAnswer:
    """What POST /initiate answers, JSON text."""

    status: int
    body: str


def pending_answer(transaction: Transaction) -> PushAnswer:
    """Accepted, or unknown: the callback will tell."""
    body = {"transaction_id": str(transaction.id), "status": Status.PENDING}
    return PushAnswer(201, json.dumps(body))


def failed_answer(transaction: Transaction, outcome: PushOutcome) -> PushAnswer:
    """Refused for good (502), or certainly not sent (503)."""
    safaricom = None
    if outcome.code is not None or outcome.message:
        safaricom = {"code": outcome.code, "message": outcome.message or None}
    common = {
        "transaction_id": str(transaction.id),
        "transaction_status": Status.FAILED,
        "reason": outcome.reason,
        "safaricom": safaricom,
    }
    if outcome.kind is PushClass.NOT_SENT:
        body = problem(
            "not-sent",
            503,
            "Nothing reached the customer's phone. Try again with a new idempotency key.",
            **common,
            retry_after=outcome.retry_after_s or BUSY_RETRY_S,
        )
        return PushAnswer(503, json.dumps(body))
    said = f"Safaricom said: {outcome.message}." if outcome.message else ""
    advice = advise(outcome.reason, outcome.code, outcome.message)
    detail = " ".join(it for it in (PUSH_REASONS[outcome.reason].en, said, advice) if it)
    return PushAnswer(502, json.dumps(problem("refused-by-safaricom", 502, detail, **common)))


def warn_of_refusal(merchant: Merchant, transaction: Transaction, outcome: PushOutcome) -> None:
    """One line for each payment that Safaricom refused, or that was not sent."""
    if outcome.kind not in (PushClass.REFUSED, PushClass.NOT_SENT):
        return
    LOGGER.warning(
        "Safaricom refused a payment request"
        if outcome.kind is PushClass.REFUSED
        else "a payment request was not sent",
        merchant=merchant.name,
        transaction_id=str(transaction.id),
        reason=outcome.reason,
        code=outcome.code,
        problem=outcome.message,
        remedy=advise(outcome.reason, outcome.code, outcome.message) or None,
    )


def record_outcome(
    pool: Pool,
    payment: uuid.UUID,
    outcome: PushOutcome,
    first_query_after: timedelta,
    now: datetime,
) -> tuple[PushAnswer, Effects]:
    """Commit what became of a push, and the answer its caller gets. Safe to repeat.

    Raises NotFoundError where the database has lost the payment: it may be written again soon.
    """
    effects = Effects()
    with pool.transaction("push.record") as conn:
        row = identity.find_row(conn, payment)
        if row is None:
            raise NotFoundError("the payment is not in this database")
        transaction = (
            transactions.lock(conn, row)
            if outcome.checkout_request_id is None
            else transactions.lock_with_checkout_request_id(conn, row, outcome.checkout_request_id)
        )
        answer = pending_answer(transaction)
        if not _is_saved(transaction, outcome):
            answer = _apply(conn, transaction, outcome, first_query_after, now, effects)
        if transaction.response_status is not None and transaction.response_body is not None:
            answer = PushAnswer(transaction.response_status, transaction.response_body)
        else:
            transactions.save_response(conn, row, answer.status, answer.body)
    effects.count()
    return answer, effects


def _is_saved(transaction: Transaction, outcome: PushOutcome) -> bool:
    """Whether a commit before this one said the same: its answer was lost, or the sweeper was it.

    To apply it again would have the push contradict itself in the transaction's history.
    """
    return (
        transaction.response_status is not None
        and transaction.push_state is _STATES[outcome.kind]
        and outcome.checkout_request_id in (None, transaction.checkout_request_id)
    )


def _apply(
    conn: Connection,
    transaction: Transaction,
    outcome: PushOutcome,
    first_query_after: timedelta,
    now: datetime,
    effects: Effects,
) -> PushAnswer:
    if outcome.kind in (PushClass.ACCEPTED, PushClass.UNKNOWN):
        _keep_pending(conn, transaction, outcome, first_query_after, now, effects)
        return pending_answer(transaction)
    if transaction.status in FINAL:
        # A callback ended it while the answer was on its way; what is final stays.
        events.append(
            conn, transaction.row, "push", "contradicts", now, push=outcome.kind, code=outcome.code
        )
        transactions.save_push_state(
            conn, transaction.row, transaction.push_state, next_query_at=None, outcome=None, now=now
        )
        return pending_answer(transaction)
    transactions.save_push_state(
        conn, transaction.row, _STATES[outcome.kind], next_query_at=None, outcome=outcome, now=now
    )
    ending = Ending(
        Status.FAILED,
        "push",
        result_code=outcome.code,
        result_desc=outcome.message,
        failure_reason=outcome.reason,
    )
    end_transaction(conn, transaction, ending, source="push", now=now, effects=effects)
    return failed_answer(transaction, outcome)


def _keep_pending(
    conn: Connection,
    transaction: Transaction,
    outcome: PushOutcome,
    first_query_after: timedelta,
    now: datetime,
    effects: Effects,
) -> None:
    """Safaricom has it, or may have it: learn its id, and plan the first question."""
    checkout_request_id = outcome.checkout_request_id
    if checkout_request_id is not None and not learn_checkout_request_id(
        conn, transaction, checkout_request_id, now, effects
    ):
        checkout_request_id = None
    known = checkout_request_id or transaction.checkout_request_id
    wait = first_query_after if known is not None else UNKNOWN_PUSH_PATIENCE
    transactions.save_push_state(
        conn,
        transaction.row,
        _STATES[outcome.kind],
        next_query_at=now + wait,
        outcome=outcome,
        now=now,
    )
    events.append(
        conn,
        transaction.row,
        "push",
        outcome.kind.lower(),
        now,
        code=outcome.code,
        message=outcome.message,
    )


def learn_checkout_request_id(
    conn: Connection,
    transaction: Transaction,
    checkout_request_id: str,
    now: datetime,
    effects: Effects,
) -> bool:
    """Adopt Safaricom's id and offer the callbacks that came before it.

    The caller holds `lock_checkout_request_id`. False when the id is another transaction's, or
    this one has another id: then it is recorded and not used.
    """
    try:
        with savepoint(conn):
            adopted = transactions.adopt_checkout_request_id(
                conn, transaction.row, checkout_request_id, now
            )
    except UniqueViolation:
        adopted = False
    if not adopted:
        events.append(conn, transaction.row, "gateway", "foreign_checkout_request_id", now)
        LOGGER.error(
            "Safaricom named a payment by the id of another one",
            transaction_id=str(transaction.id),
        )
        return False
    came_first = callbacks.release_unmatched(conn, checkout_request_id, transaction.created_at, now)
    for callback_id in came_first:
        effects.work.append(Work(WorkKind.CALLBACK, callback_id))
    return True


def end_expired_push(
    pool: Pool, row: int, first_query_after: timedelta, now: datetime
) -> Effects | None:
    """End a push whose process died or was too slow; None when somebody else did.

    INTENT is certainly not sent: FAILED. SENDING may have left: pending for ever after, never sent
    again, settled by its callback token or by a person.
    """
    effects = Effects()
    with pool.transaction("push.expire") as conn:
        transaction = transactions.lock(conn, row)
        follow(transaction.id, transaction.traceparent)
        lease = transaction.push_lease_until
        if lease is None or lease > now:
            return None
        outcome = (
            not_sent("the gateway stopped before it was sent")
            if transaction.push_state is PushState.INTENT
            else unknown("the gateway stopped while it was being sent")
        )
        answer = _apply(conn, transaction, outcome, first_query_after, now, effects)
        transactions.save_response(conn, row, answer.status, answer.body)
    effects.count()
    return effects

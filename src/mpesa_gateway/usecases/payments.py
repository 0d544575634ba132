"""POST /initiate: intent committed, push sent at most once, outcome committed.

There is no idempotency key at Safaricom. So the intent is committed before anything leaves, the
step into SENDING is committed before the push leaves, and a push whose outcome is unknown is never
sent again: the token in its callback URL heals it.
"""

from __future__ import annotations

import json
import math
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mpesa_gateway import metrics, tracing
from mpesa_gateway.clients.budget import Budgets
from mpesa_gateway.clients.daraja import Daraja, Push
from mpesa_gateway.clients.token import (
    TokenCache,
    TokenRefusedError,
    TokenUnavailableError,
    app_id,
)
from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.ids import SECRET_BYTES, CallbackToken
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.push import (
    PushClass,
    PushOutcome,
    credentials_refused,
    not_sent,
)
from mpesa_gateway.domain.transaction import PROMPT_LIFE, PaymentRequest, Transaction
from mpesa_gateway.errors import (
    InvalidInputError,
    KeyInFlightError,
    KeyReusedError,
    MerchantDrainingError,
    MerchantSuspendedError,
    PromptOpenError,
    RateLimitedError,
    UnavailableError,
)
from mpesa_gateway.log import get_logger
from mpesa_gateway.store import events, transactions
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.usecases.endings import Effects, count_transaction, new_id
from mpesa_gateway.usecases.push_leases import PushLeases
from mpesa_gateway.usecases.pushes import PushAnswer, pending_answer, record_outcome

LOGGER = get_logger(__name__)

# A process that was paused between its commit and the push does not push any more.
LATEST_START_S = 5.0
# How long to go on saving an outcome while Postgres is away.
SAVE_OUTCOME_S = 8.0
SAVE_RETRY_S = 0.25


@dataclass(frozen=True)
class InitiateAnswer:
    """What POST /initiate answers. `body` is JSON text, kept as it is for replays."""

    status: int
    body: str
    transaction_id: uuid.UUID
    replayed: bool = False

    @property
    def retry_after_s(self) -> int | None:
        """When to try again, None when the answer does not say."""
        content: dict[str, Any] = json.loads(self.body)
        seconds = content.get("retry_after")
        return seconds if isinstance(seconds, int) else None


@dataclass(frozen=True)
class Payments:
    """The collaborators and settings that starting a payment needs."""

    pool: Pool
    daraja: Daraja
    tokens: TokenCache
    leases: PushLeases
    budgets: Budgets
    clock: Callable[[], datetime]
    callback_url: str
    push_per_minute: int
    first_query_after: timedelta
    allow_private: bool

    def initiate(
        self, merchant: Merchant, request: PaymentRequest
    ) -> tuple[InitiateAnswer, Effects]:
        """Start a payment, or repeat the answer that its key got before.

        Raises InvalidInputError, RequestRefusedError, UnavailableError: nothing was created then.
        """
        with self.pool.connection("initiate.find") as conn:
            known = transactions.find_by_key(conn, merchant.name, request.idempotency_key)
        if known is not None:
            return replay(known, request), Effects()
        webhook_url = self._check(merchant, request)
        token = CallbackToken(new_id(self.clock()), secrets.token_bytes(SECRET_BYTES))
        with self.pool.transaction("initiate.intent") as conn:
            created, transaction = self._create(conn, merchant, request, webhook_url, token)
        if not created:
            return replay(transaction, request), Effects()
        tracing.follow(transaction.id, transaction.traceparent)
        count_transaction(transaction)
        with self.leases.kept(transaction.row):
            outcome = self._push(merchant, transaction, token)
            metrics.stk_push_total.labels(outcome.kind.lower()).inc()
            answer, effects = self._save_outcome(transaction, outcome)
        return InitiateAnswer(answer.status, answer.body, transaction.id), effects

    def _check(self, merchant: Merchant, request: PaymentRequest) -> str:
        """What only the merchant's settings can tell. The webhook URL to use."""
        if merchant.draining:
            raise MerchantDrainingError("the merchant is being removed")
        if merchant.suspended:
            raise MerchantSuspendedError("the merchant may not start payments")
        if not merchant.min_amount <= request.amount <= merchant.max_amount:
            raise InvalidInputError.of(
                "amount", f"must be from {merchant.min_amount} to {merchant.max_amount} shillings"
            )
        url = request.webhook_url or merchant.webhook_url
        if url is None:
            raise InvalidInputError.of("webhook_url", "is needed: the merchant has none of its own")
        hosts = merchant.allowed_hosts if request.webhook_url else ()
        parse_endpoint(url, allow_private=self.allow_private, allowed_hosts=hosts)
        grant = self.budgets.take(f"initiate:{merchant.name}", merchant.initiate_per_minute)
        if not grant.granted:
            raise RateLimitedError(
                f"more than {merchant.initiate_per_minute} payments a minute",
                retry_after_s=math.ceil(grant.wait_s),
            )
        return url

    def _create(
        self,
        conn: Connection,
        merchant: Merchant,
        request: PaymentRequest,
        webhook_url: str,
        token: CallbackToken,
    ) -> tuple[bool, Transaction]:
        """Write the intent down, once per key and with no other prompt on that phone."""
        transactions.lock_phone(conn, merchant.short_code, request.phone)
        known = transactions.find_by_key(conn, merchant.name, request.idempotency_key)
        if known is not None:
            return False, known
        now = self.clock()
        until = transactions.find_open_prompt(conn, merchant.short_code, request.phone, now)
        if until is not None:
            raise PromptOpenError(
                "another payment is waiting for its PIN on this phone",
                retry_after_s=max(math.ceil((until - now).total_seconds()), 1),
            )
        intent = transactions.Intent(
            id=token.transaction,
            merchant=merchant.name,
            request=request,
            short_code=merchant.short_code,
            webhook_url=webhook_url,
            callback_secret_sha256=token.secret_sha256,
            push_lease_until=now + self.leases.intent,
            prompt_until=now + PROMPT_LIFE,
            traceparent=tracing.current_traceparent(),
        )
        created = transactions.insert_intent(conn, intent, now)
        if created is not None:
            events.append(conn, created.row, "caller", "requested", now)
            return True, created
        # Another phone, the same key, at the same moment.
        known = transactions.find_by_key(conn, merchant.name, request.idempotency_key)
        assert known is not None
        return False, known

    def _push(
        self, merchant: Merchant, transaction: Transaction, token: CallbackToken
    ) -> PushOutcome:
        """Send the push at most once, but for a token that Safaricom refused: then once more."""
        try:
            access = self.tokens.get(merchant)
        except TokenRefusedError as error:
            return credentials_refused(None, str(error))
        except TokenUnavailableError as error:
            return not_sent(str(error))
        grant = self.budgets.take(f"push:{app_id(merchant)}", self.push_per_minute)
        metrics.daraja_budget_remaining.labels("push").set(grant.left)
        if not grant.granted:
            metrics.daraja_budget_refused_total.labels("push").inc()
            return not_sent(
                "the budget of pushes is used up", retry_after_s=math.ceil(grant.wait_s)
            )
        push = Push(
            merchant=merchant,
            amount=transaction.amount,
            phone=transaction.phone,
            callback_url=f"{self.callback_url}/{token.text}",
            account_reference=transaction.account_reference,
            description=transaction.description,
        )
        outcome = self._send(transaction, push, access)
        if outcome.kind is PushClass.TOKEN_REJECTED:
            outcome = self._send_again(transaction, push, access)
        return outcome

    def _send(self, transaction: Transaction, push: Push, access: str) -> PushOutcome:
        """Commit the step into SENDING, then push; without the one, never the other."""
        started = time.monotonic()
        if not self._mark_sending(transaction):
            return not_sent("the gateway took too long to send it")
        if time.monotonic() - started > LATEST_START_S:
            return not_sent("the gateway was paused before it could send it")
        return self.daraja.push(push, access)

    def _send_again(self, transaction: Transaction, push: Push, refused: str) -> PushOutcome:
        """The token was refused, so nothing was accepted: one fresh token, one more push."""
        merchant = push.merchant
        self.tokens.reject(merchant, refused)
        try:
            access = self.tokens.get(merchant)
        except TokenRefusedError as error:
            return credentials_refused(None, str(error))
        except TokenUnavailableError as error:
            return not_sent(str(error))
        outcome = self._send(transaction, push, access)
        if outcome.kind is not PushClass.TOKEN_REJECTED:
            return outcome
        self.tokens.reject(merchant, access)
        return credentials_refused(outcome.code, outcome.message)

    def _mark_sending(self, transaction: Transaction) -> bool:
        """False when Postgres is away or the sweeper ended the intent: then nothing may leave."""
        now = self.clock()
        try:
            with self.pool.connection("initiate.sending") as conn:
                return transactions.mark_sending(
                    conn,
                    transaction.row,
                    lease_until=now + self.leases.sending,
                    prompt_until=now + PROMPT_LIFE,
                    now=now,
                )
        except UnavailableError:
            LOGGER.warning("push not sent: its step could not be committed")
            return False

    def _save_outcome(
        self, transaction: Transaction, outcome: PushOutcome
    ) -> tuple[PushAnswer, Effects]:
        """Commit the outcome; an accepted push is worth waiting for Postgres to come back."""
        give_up = time.monotonic() + SAVE_OUTCOME_S
        while True:
            try:
                return record_outcome(
                    self.pool, transaction.row, outcome, self.first_query_after, self.clock()
                )
            except UnavailableError:
                if time.monotonic() < give_up:
                    time.sleep(SAVE_RETRY_S)
                    continue
                LOGGER.exception(
                    "outcome of a push not saved; the sweeper will end it",
                    transaction_id=str(transaction.id),
                    outcome=outcome.kind,
                )
                if outcome.kind in (PushClass.REFUSED, PushClass.NOT_SENT):
                    raise
                # It may have reached the phone: pending is the truth, whatever Postgres does.
                return pending_answer(transaction), Effects()


def replay(transaction: Transaction, request: PaymentRequest) -> InitiateAnswer:
    """The answer that the key got before. Raises KeyReusedError, KeyInFlightError."""
    if transaction.request_sha256 != request.sha256():
        raise KeyReusedError("the idempotency key was used for another payment; make a new one")
    if transaction.response_status is None or transaction.response_body is None:
        raise KeyInFlightError("the first request with this key has not ended; ask again")
    return InitiateAnswer(
        transaction.response_status, transaction.response_body, transaction.id, replayed=True
    )

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

from mpesa_gateway.clients.budget import Budgets
from mpesa_gateway.clients.caller import on_behalf_of
from mpesa_gateway.clients.daraja import Daraja, Push
from mpesa_gateway.clients.token import (
    TokenCache,
    TokenRefusedError,
    TokenUnavailableError,
    app_id,
)
from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.ids import SECRET_BYTES, CallbackToken, TokenKeys
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.push import (
    PushClass,
    PushOutcome,
    credentials_refused,
    not_sent,
)
from mpesa_gateway.domain.transaction import PaymentRequest, Transaction
from mpesa_gateway.errors import (
    InvalidInputError,
    KeyInFlightError,
    KeyReusedError,
    MerchantDrainingError,
    MerchantSuspendedError,
    NotFoundError,
    PromptOpenError,
    RateLimitedError,
    UnavailableError,
    UnknownServerError,
)
from mpesa_gateway.store import events, payment_keys, prompts, transactions
from mpesa_gateway.store.orders import OrderTakenError, one_attempt
from mpesa_gateway.store.payment_keys import PaymentKey
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.telemetry import metrics, tracing
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases import orders
from mpesa_gateway.usecases.entrance import Entrance
from mpesa_gateway.usecases.finalize import Effects, count_transaction, new_id
from mpesa_gateway.usecases.held_outcomes import HeldOutcomes
from mpesa_gateway.usecases.push_leases import PushLeases
from mpesa_gateway.usecases.pushes import (
    PushAnswer,
    pending_answer,
    record_outcome,
    warn_of_refusal,
)
from mpesa_gateway.usecases.recovery import Recovery

LOGGER = get_logger(__name__)

# Before the last push: a fresh token was refused now and then (public issues).
FRESH_TOKEN_PAUSE_S = 1.0
# A process that was paused between its commit and the push does not push any more.
LATEST_START_S = 5.0
# How long a caller waits for its outcome to be saved while Postgres is away. It is held after that.
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
    entrance: Entrance
    recovery: Recovery
    daraja: Daraja
    tokens: TokenCache
    leases: PushLeases
    held_outcomes: HeldOutcomes
    budgets: Budgets
    clock: Callable[[], datetime]
    callback_url: str
    token_keys: TokenKeys
    push_per_minute: int
    first_query_after: timedelta
    prompt_life: timedelta
    allow_private: bool
    prompts_per_phone_per_hour: int

    def initiate(
        self, merchant: Merchant, request: PaymentRequest
    ) -> tuple[InitiateAnswer, Effects]:
        """Start a payment, or repeat the answer that its key got before.

        Raises InvalidInputError, RequestRefusedError, UnavailableError: nothing was created then.
        """
        with self.entrance.turn():
            token = self.token_keys.make(new_id(self.clock()), secrets.token_bytes(SECRET_BYTES))
            begun = self._begin(merchant, request, token)
        if isinstance(begun, InitiateAnswer):
            return begun, Effects()
        intent, transaction = begun
        self.recovery.acknowledged.intent(intent, transaction.created_at)
        tracing.follow(transaction.id, transaction.traceparent)
        count_transaction(transaction)
        with self.leases.kept(transaction.row), on_behalf_of(merchant.name):
            outcome = self._push(merchant, transaction, token)
            metrics.stk_push_total.labels(outcome.kind.lower()).inc()
            warn_of_refusal(merchant, transaction, outcome)
            # Before it is saved: a database that has lost the payment gets both from memory.
            self.recovery.acknowledged.outcome(transaction.id, outcome)
            answer, effects = self._save_outcome(transaction, outcome)
        return InitiateAnswer(answer.status, answer.body, transaction.id), effects

    def _begin(
        self, merchant: Merchant, request: PaymentRequest, token: CallbackToken
    ) -> tuple[transactions.Intent, Transaction] | InitiateAnswer:
        """The committed intent, or the answer that its key got before."""
        with self.pool.connection("initiate.find") as conn:
            key = request.idempotency_key
            known = transactions.find_by_key(conn, merchant.name, key) or payment_keys.find(
                conn, merchant.name, key
            )
            if known is not None:
                return replay(known, request)
            orders.refuse_taken(conn, merchant.name, request, self.clock())
        webhook_url = self._check(merchant, request)
        intent, transaction = self._commit_intent(merchant, request, webhook_url, token)
        return replay(transaction, request) if intent is None else (intent, transaction)

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

    def _check_prompts(self, conn: Connection, phone: str, now: datetime) -> None:
        """Raise RateLimitedError where the phone has had its prompts of an hour, from whomever."""
        per_hour = self.prompts_per_phone_per_hour
        if per_hour == 0:
            return
        at = prompts.find_next_prompt_at(conn, phone, per_hour=per_hour, now=now)
        if at is not None:
            raise RateLimitedError(
                f"this phone has been prompted {per_hour} times within an hour",
                retry_after_s=max(math.ceil((at - now).total_seconds()), 1),
            )

    def _commit_intent(
        self, merchant: Merchant, request: PaymentRequest, webhook_url: str, token: CallbackToken
    ) -> tuple[transactions.Intent | None, Transaction]:
        """The intent, or None and the payment that its key made before.

        A server that this process does not know is examined first: it may have lost that payment.
        """
        for is_last in (False, True):
            try:
                with self.pool.transaction("initiate.intent") as conn:
                    return self._create(conn, merchant, request, webhook_url, token)
            except UnknownServerError:
                if is_last:
                    raise
                self.recovery.examine()
            except OrderTakenError:
                orders.refuse_overtaken(self.pool, merchant.name, request, self.clock())
        raise AssertionError

    def _create(
        self,
        conn: Connection,
        merchant: Merchant,
        request: PaymentRequest,
        webhook_url: str,
        token: CallbackToken,
    ) -> tuple[transactions.Intent | None, Transaction]:
        """Write the intent down, once per key and with no other prompt on that phone."""
        transactions.lock_phone(conn, merchant.short_code, request.phone)
        known = transactions.find_by_key(conn, merchant.name, request.idempotency_key)
        if known is not None:
            return None, known
        self.recovery.admit(conn)
        now = self.clock()
        orders.refuse_taken(conn, merchant.name, request, now)
        self._check_prompts(conn, request.phone, now)
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
            prompt_until=now + self.prompt_life,
            traceparent=tracing.current_traceparent(),
        )
        with one_attempt():
            created = transactions.insert_intent(conn, intent, now)
        if created is not None:
            events.append(conn, created.row, "caller", "requested", now)
            return intent, created
        # Another phone, the same key, at the same moment.
        known = transactions.find_by_key(conn, merchant.name, request.idempotency_key)
        assert known is not None
        return None, known

    def _push(
        self, merchant: Merchant, transaction: Transaction, token: CallbackToken
    ) -> PushOutcome:
        """Send the push at most once, but for tokens that Safaricom refused: three times."""
        access = self._access(merchant)
        if isinstance(access, PushOutcome):
            return access
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
            outcome = self._send_again(transaction, push)
        if outcome.kind is PushClass.TOKEN_REJECTED:
            return self._credentials_refused(merchant, outcome.code, outcome.message)
        if outcome.kind is PushClass.ACCEPTED:
            self.tokens.note_worked(merchant)
        return outcome

    def _access(self, merchant: Merchant) -> str | PushOutcome:
        """A token, or what becomes of the push without one."""
        try:
            return self.tokens.get_for_push(merchant)
        except TokenRefusedError as error:
            return self._credentials_refused(merchant, None, str(error))
        except TokenUnavailableError as error:
            return not_sent(str(error))

    def _credentials_refused(
        self, merchant: Merchant, code: str | None, message: str | None
    ) -> PushOutcome:
        """Refused for good, unless they worked so lately that this is Safaricom's trouble."""
        if self.tokens.has_worked_lately(merchant):
            return not_sent(f"credentials that worked lately are refused: {message}")
        return credentials_refused(code, message)

    def _send(self, transaction: Transaction, push: Push, access: str) -> PushOutcome:
        """Commit the step into SENDING, then push; without the one, never the other."""
        started = time.monotonic()
        if not self._mark_sending(transaction):
            return not_sent("the gateway took too long to send it")
        if time.monotonic() - started > LATEST_START_S:
            return not_sent("the gateway was paused before it could send it")
        outcome = self.daraja.push(push, access)
        if outcome.token_refused:
            self.tokens.reject(push.merchant, access)
        return outcome

    def _send_again(self, transaction: Transaction, push: Push) -> PushOutcome:
        """The token was refused, so nothing was accepted: one more push with a fresh token.

        Where the fresh one is refused too, once more after a pause. Without a third token, that
        second refusal stands.
        """
        access = self._access(push.merchant)
        if isinstance(access, PushOutcome):
            return access
        outcome = self._send(transaction, push, access)
        if outcome.kind is not PushClass.TOKEN_REJECTED:
            return outcome
        time.sleep(FRESH_TOKEN_PAUSE_S)
        access = self._access(push.merchant)
        return self._send(transaction, push, access) if isinstance(access, str) else outcome

    def _mark_sending(self, transaction: Transaction) -> bool:
        """False when Postgres is away or the sweeper ended the intent: then nothing may leave."""
        now = self.clock()
        try:
            with self.pool.connection("initiate.sending") as conn:
                return transactions.mark_sending(
                    conn,
                    transaction,
                    lease=now + self.leases.sending,
                    prompt_until=now + self.prompt_life,
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
        entry: str | None = None
        while True:
            try:
                saved = record_outcome(
                    self.pool, transaction.id, outcome, self.first_query_after, self.clock()
                )
            except (UnavailableError, NotFoundError) as error:
                entry = entry or self.held_outcomes.write_down(transaction, outcome)
                if time.monotonic() < give_up:
                    time.sleep(SAVE_RETRY_S)
                    continue
                self._hold(transaction, outcome, entry)
                if outcome.kind in (PushClass.REFUSED, PushClass.NOT_SENT):
                    raise UnavailableError(str(error)) from error
                # It may have reached the phone: pending is the truth, whatever Postgres does.
                return pending_answer(transaction), Effects()
            else:
                self.held_outcomes.forget(entry)
                return saved

    def _hold(self, transaction: Transaction, outcome: PushOutcome, entry: str | None) -> None:
        if self.held_outcomes.hold(transaction, outcome, entry):
            LOGGER.warning(
                "outcome of a push is held until Postgres takes it",
                transaction_id=str(transaction.id),
                outcome=outcome.kind,
            )
            return
        LOGGER.error(
            "outcome of a push not saved, and there is no room to hold it; the sweeper will end it",
            transaction_id=str(transaction.id),
            outcome=outcome.kind,
        )


def replay(transaction: Transaction | PaymentKey, request: PaymentRequest) -> InitiateAnswer:
    """The answer that the key got before. Raises KeyReusedError, KeyInFlightError."""
    if transaction.request_sha256 != request.sha256():
        raise KeyReusedError("the idempotency key was used for another payment; make a new one")
    if transaction.response_status is None or transaction.response_body is None:
        raise KeyInFlightError("the first request with this key has not ended; ask again")
    return InitiateAnswer(
        transaction.response_status, transaction.response_body, transaction.id, replayed=True
    )

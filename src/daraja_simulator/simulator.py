"""The stand-in itself: judges pushes and queries, and plays the customers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daraja_simulator import replies
from daraja_simulator.callback import Debit, callback_body
from daraja_simulator.chances import Chances
from daraja_simulator.ids import (
    Receipts,
    new_checkout_request_id,
    new_merchant_request_id,
    now,
)
from daraja_simulator.ledger import CallbackRecord, DebitRecord, Ledger, PushRecord, QueryRecord
from daraja_simulator.ledger_file import LedgerFile
from daraja_simulator.limiter import SpikeArrest
from daraja_simulator.outcomes import (
    BUSY,
    BY_NAME,
    CallbackTime,
    Outcome,
    PushAnswer,
    get_outcome,
)
from daraja_simulator.overrides import NextPush
from daraja_simulator.payments import Payment, Payments
from daraja_simulator.poster import Poster
from daraja_simulator.replies import PaymentIds, RefusedError, Reply
from daraja_simulator.settings import Settings
from daraja_simulator.tokens import Tokens
from daraja_simulator.validation import (
    PushRequest,
    QueryRequest,
    parse_object,
    parse_push,
    parse_query,
)

# Above this many payments whose customer or callback is awaited, pushes are answered busy.
MAX_PAYMENTS_UNDER_WAY = 50_000
MAX_RECORDED_CHARACTERS = 1_024

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushVerdict:
    """What is done about a push. `reply` None cuts the connection; no `payment`, no prompt."""

    reply: Reply | None
    outcome: Outcome | None = None
    payment: Payment | None = None


class Simulator:
    """All state of one simulator, which works between `open` and `close`.

    `payments_under_way` counts the accepted payments whose customer or callback is awaited.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        path = settings.ledger_file
        self._file = LedgerFile(Path(path)) if path is not None else None
        self.ledger = Ledger(settings.max_records, self._file)
        self.tokens = Tokens()
        self.payments = Payments(settings.max_records)
        self.next_push = NextPush()
        self.next_query: Reply | None = None
        self._chances = Chances(settings.seed)
        self._receipts = Receipts()
        self._spike_arrest = SpikeArrest()
        self._poster = Poster()
        self._tasks: set[asyncio.Task[None]] = set()
        self.payments_under_way = 0

    def change(self, changes: Mapping[str, object]) -> None:
        """Change settings at run time. Raises SettingsError, and then nothing has changed."""
        self.settings = self.settings.changed(changes)
        if "seed" in changes:
            self._chances = Chances(self.settings.seed)

    def open(self) -> None:
        """Start, inside the event loop. Raises OSError when the ledger file cannot be opened."""
        if self._file is not None:
            self._file.open()
        self._poster.open()

    async def stop(self) -> None:
        """Forget the payments under way: their callbacks never come."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Give back connections, the ledger file and the memory.

        A large ledger that is left to the interpreter makes its end take seconds.
        """
        await self.stop()
        await self._poster.close()
        if self._file is not None:
            await self._file.close()
        self.ledger.clear()
        self.payments.clear()

    async def receive_push(self, authorization: str | None, raw: bytes) -> PushVerdict:
        """Judge and record a push. The caller starts its payment and answers it.

        Raises OSError when the ledger file cannot be written: then no payment goes on.
        """
        app_key: str | None = None
        said: dict[str, Any] = {}
        push: PushRequest | None = None
        try:
            app_key = self.tokens.get_owner(authorization, time.monotonic())
            said = parse_object(raw)
            push = parse_push(said, self.settings.passkeys)
            verdict = self._decide(push)
        except RefusedError as refused:
            verdict = PushVerdict(refused.reply)
        try:
            await self.ledger.record(_push_record(app_key, said, push, verdict))
        except OSError:
            if verdict.payment is not None:
                self.payments.forget(verdict.payment)
                self.payments_under_way -= 1
            raise
        return verdict

    def _decide(self, push: PushRequest) -> PushVerdict:
        """The fate of a push that is right in itself. Raises RefusedError."""
        outcome = self.next_push.outcome or get_outcome(push.phone)
        if outcome.ends_open_prompt:
            self._end_open_prompts(push)
        elif self.settings.subscriber_lock and self.payments.has_open_prompt(push):
            raise RefusedError(replies.subscriber_locked())
        chances = self._chances.draw_push(self.settings)
        override, self.next_push = self.next_push, NextPush()
        if chances.push_fails or self.payments_under_way >= MAX_PAYMENTS_UNDER_WAY:
            outcome = BUSY
        ids = self._new_ids(push, override)
        reply = override.answer or replies.PUSH_REPLIES[outcome.push_answer](ids)
        if not override.accepted:
            return PushVerdict(reply)
        if not outcome.accepted:
            return PushVerdict(reply, outcome)
        payment = Payment(push, ids, outcome, chances.copies(outcome.callback_copies))
        self.payments.open_prompt(payment)
        self.payments_under_way += 1
        return PushVerdict(reply, outcome, payment)

    def _end_open_prompts(self, push: PushRequest) -> None:
        """A second prompt takes the place of the first, which ends as cancelled [C]."""
        for payment in self.payments.list_open(push):
            payment.outcome = BY_NAME["cancelled"]

    def _new_ids(self, push: PushRequest, override: NextPush) -> PaymentIds:
        return PaymentIds(
            override.merchant_request_id or new_merchant_request_id(),
            override.checkout_request_id
            or new_checkout_request_id(now(), push.phone, self.payments),
        )

    async def start(self, payment: Payment) -> None:
        """Let the customer answer the prompt. Returns when the push may be answered."""
        before = payment.outcome.callback_time is CallbackTime.BEFORE_PUSH_ANSWER
        delay_s = 0.0 if before else self.settings.callback_delay
        task = asyncio.create_task(self._play(payment, delay_s))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        if before:
            await asyncio.wait([task])
        if payment.outcome.push_answer is PushAnswer.HANG:
            await asyncio.sleep(self.settings.hang_delay)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.payments_under_way -= 1
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.error("A payment could not go on", exc_info=problem)

    async def _play(self, payment: Payment, delay_s: float) -> None:
        """The customer answers after `delay_s` seconds, and is called back about."""
        await asyncio.sleep(delay_s)
        debit = None
        try:
            if payment.outcome.charged:
                debit = await self._charge(payment)
        finally:
            self.payments.close_prompt(payment)
        if payment.callback_copies == 0:
            return
        if payment.outcome.callback_time is CallbackTime.LATE:
            await asyncio.sleep(self.settings.late_delay)
        body = callback_body(payment.ids, payment.outcome, debit)
        copies = range(1, payment.callback_copies + 1)
        await asyncio.gather(*(self._post(payment, body, copy) for copy in copies))

    async def _charge(self, payment: Payment) -> Debit:
        """Take the money. On disk before anybody hears of it."""
        push = payment.push
        debit = Debit(push.amount, push.phone, self._receipts.take(), now())
        await self.ledger.record(
            DebitRecord(
                merchant_request_id=payment.ids.merchant_request_id,
                checkout_request_id=payment.ids.checkout_request_id,
                short_code=push.short_code,
                phone=push.phone,
                amount=push.amount,
                account_reference=push.account_reference,
                receipt=debit.receipt,
                callback_url=push.callback_url,
            )
        )
        return debit

    async def _post(self, payment: Payment, body: bytes, copy: int) -> None:
        posted = await self._poster.post(
            payment.push.callback_url,
            body,
            payment.push.short_code,
            timeout_s=self.settings.callback_timeout,
            verify_tls=self.settings.verify_tls,
        )
        await self.ledger.record(
            CallbackRecord(
                merchant_request_id=payment.ids.merchant_request_id,
                checkout_request_id=payment.ids.checkout_request_id,
                phone=payment.push.phone,
                callback_url=payment.push.callback_url,
                copy=copy,
                copies=payment.callback_copies,
                status=posted.status,
                error=posted.error,
                duration_ms=posted.duration_ms,
                body=body.decode(),
            )
        )

    async def receive_query(self, authorization: str | None, raw: bytes) -> Reply:
        """Judge and record a query."""
        app_key: str | None = None
        query: QueryRequest | None = None
        payment: Payment | None = None
        try:
            app_key = self.tokens.get_owner(authorization, time.monotonic())
            self._check_query_rate(app_key)
            query = parse_query(parse_object(raw), self.settings.passkeys)
            payment = self.payments.find(query.checkout_request_id, query.short_code)
            reply = self._answer_query(payment)
        except RefusedError as refused:
            reply = refused.reply
        await self.ledger.record(_query_record(app_key, query, payment, reply))
        return reply

    def _check_query_rate(self, app_key: str) -> None:
        per_minute = self.settings.queries_per_minute
        if not self._spike_arrest.allows(app_key, time.monotonic(), per_minute):
            raise RefusedError(replies.spike_arrest(per_minute))

    def _answer_query(self, payment: Payment | None) -> Reply:
        """What is known about a payment; None is one that nobody knows."""
        override, self.next_query = self.next_query, None
        if override is not None:
            return override
        if self._chances.draw_query_failure(self.settings):
            return replies.no_information()
        if payment is None:
            return replies.invalid_checkout_request_id()
        outcome = payment.outcome
        code = outcome.query_code
        if code is None:
            return replies.no_information()
        if outcome.query_names_another:
            return replies.query_ended(self._ids_of_another(payment), code)
        if not payment.prompt_open:
            return replies.query_ended(payment.ids, code)
        if outcome.open_query_code is not None:
            return replies.query_ended(payment.ids, outcome.open_query_code)
        return replies.OPEN_PROMPT_REPLIES[self.settings.query_while_open](payment.ids)

    def _ids_of_another(self, payment: Payment) -> PaymentIds:
        other = new_checkout_request_id(now(), payment.push.phone, self.payments)
        return PaymentIds(new_merchant_request_id(), other)


def _push_record(
    app_key: str | None, said: Mapping[str, Any], push: PushRequest | None, verdict: PushVerdict
) -> PushRecord:
    payment, outcome, reply = verdict.payment, verdict.outcome, verdict.reply
    return PushRecord(
        app_key=app_key,
        short_code=_said(said, "BusinessShortCode"),
        phone=_said(said, "PhoneNumber"),
        amount=push.amount if push else None,
        account_reference=_said(said, "AccountReference"),
        callback_url=_said(said, "CallBackURL"),
        accepted=payment is not None,
        outcome=outcome.name if outcome else None,
        callback_copies=payment.callback_copies if payment else 0,
        merchant_request_id=payment.ids.merchant_request_id if payment else None,
        checkout_request_id=payment.ids.checkout_request_id if payment else None,
        answer_status=reply.status if reply else None,
        answer_body=reply.body if reply else None,
    )


def _query_record(
    app_key: str | None, query: QueryRequest | None, payment: Payment | None, reply: Reply
) -> QueryRecord:
    return QueryRecord(
        app_key=app_key,
        short_code=query.short_code if query else None,
        checkout_request_id=query.checkout_request_id if query else None,
        phone=payment.push.phone if payment else None,
        callback_url=payment.push.callback_url if payment else None,
        answer_status=reply.status,
        answer_body=reply.body,
    )


def _said(said: Mapping[str, Any], field: str) -> str | None:
    """What a body says in a field, right or wrong, as text of a bounded length."""
    value = said.get(field)
    if not isinstance(value, str | int):
        return None
    return str(value)[:MAX_RECORDED_CHARACTERS]

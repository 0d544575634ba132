"""Writes again what this process was acknowledged and the database has lost.

Idempotent by idempotency key, payment id and body digest: what is there stays as it is. What cannot
be written again is listed all the same, and so are webhooks that went out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mpesa_gateway.domain.transaction import PROMPT_LIFE
from mpesa_gateway.store import events, identity, inbox, recovery, transactions
from mpesa_gateway.store.inbox import NewCallback
from mpesa_gateway.store.orders import OrderTakenError, one_attempt
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.store.recovery import LostRow
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.usecases.acknowledged import CallbackKey, KnownPayment, KnownWebhook, Memory
from mpesa_gateway.usecases.pushes import record_outcome

# Callbacks of one statement, as in the inbox.
BATCH = 64


@dataclass(frozen=True)
class Missing:
    """What of a process's memory is not in the database."""

    payments: list[KnownPayment]
    outcomes: list[KnownPayment]
    callbacks: dict[CallbackKey, NewCallback]
    webhooks: list[KnownWebhook]

    def __len__(self) -> int:
        return sum(len(it) for it in (self.payments, self.outcomes, self.callbacks, self.webhooks))

    @property
    def is_loss(self) -> bool:
        """Whether a row is missing that was committed; the rest may have other reasons."""
        return bool(self.payments or self.callbacks or self.webhooks)


def find_missing(conn: Connection, memory: Memory) -> Missing:
    """Compare a memory with the database."""
    payments = {it.intent.id: it for it in memory.payments}
    gone = identity.list_missing_payments(conn, list(payments))
    ended = [it.intent.id for it in memory.payments if it.outcome and it.intent.id not in gone]
    unanswered = identity.list_unanswered(conn, ended)
    callbacks = identity.list_missing_callbacks(conn, list(memory.callbacks))
    webhooks = identity.list_missing_webhooks(
        conn, [(it.payment, it.webhook_id) for it in memory.webhooks]
    )
    return Missing(
        [it for name, it in payments.items() if name in gone],
        [it for name, it in payments.items() if name in unanswered],
        {key: it for key, it in memory.callbacks.items() if key in callbacks},
        [it for it in memory.webhooks if it.webhook_id in webhooks],
    )


@dataclass(frozen=True)
class Rewriting:
    """The collaborators and settings that writing again needs."""

    pool: Pool
    clock: Callable[[], datetime]
    sending_lease: timedelta
    first_query_after: timedelta

    def write_again(self, missing: Missing) -> None:
        """Write all that is missing, and list it. Safe to repeat. Raises UnavailableError."""
        # First: what is written again may bring the row of the webhook back.
        for webhook in missing.webhooks:
            self._list("webhook", webhook.payment, written=False, about=webhook.about)
        for known in missing.payments:
            self._list("payment", known.intent.id, written=self._write_payment(known))
        for known in [*missing.payments, *missing.outcomes]:
            if known.outcome is not None:
                self._list("outcome", known.intent.id, written=self._write_outcome(known))
        callbacks = list(missing.callbacks.values())
        for start in range(0, len(callbacks), BATCH):
            self._write_callbacks(callbacks[start : start + BATCH])

    def _write_payment(self, known: KnownPayment) -> bool:
        """As a push that may have left. False when its key or its order has another payment now."""
        try:
            return self._insert_payment(known)
        except OrderTakenError:
            return False

    def _insert_payment(self, known: KnownPayment) -> bool:
        now = self.clock()
        with self.pool.transaction("recovery.payment") as conn:
            with one_attempt():
                created = transactions.insert_intent(conn, known.intent, known.at)
            if created is None:
                return False
            transactions.mark_sending(
                conn,
                created,
                lease=now + self.sending_lease,
                prompt_until=now + PROMPT_LIFE,
                now=now,
            )
            events.append(conn, created.row, "gateway", "written_again", now)
        return True

    def _write_outcome(self, known: KnownPayment) -> bool:
        assert known.outcome is not None
        with self.pool.connection("recovery.find") as conn:
            if transactions.find(conn, None, known.intent.id) is None:
                return False
        record_outcome(
            self.pool, known.intent.id, known.outcome, self.first_query_after, self.clock()
        )
        return True

    def _write_callbacks(self, callbacks: list[NewCallback]) -> None:
        with self.pool.connection("recovery.callbacks") as conn:
            taken = inbox.keep(conn, callbacks)
        for callback, verdict in zip(callbacks, taken.verdicts, strict=True):
            digest = callback.body_sha256.hex()
            self._list("callback", callback.payment, written=verdict.is_stored, about=digest)

    def _list(
        self, kind: str, payment: uuid.UUID | None, *, written: bool, about: str = ""
    ) -> None:
        lost = LostRow(kind, payment, about, written, self.clock())
        with self.pool.connection("recovery.list") as conn:
            recovery.write_lost(conn, lost)
        metrics.lost_rows_total.labels(kind, "yes" if written else "no").inc()

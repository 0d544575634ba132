"""What this process was acknowledged lately: intents, outcomes, callbacks, delivered webhooks.

A database that lost its last seconds gets the first three back from here. A webhook cannot be taken
back: the recovery report lists it. Bounded in number, bytes and age; the age counts back from the
last look that found the database whole, so that an outage of any length forgets nothing.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mpesa_gateway.domain.push import PushOutcome
from mpesa_gateway.store.deliveries import Delivery
from mpesa_gateway.store.inbox import NewCallback
from mpesa_gateway.store.transactions import Intent

AGE = timedelta(minutes=1)
# Above a minute of the fastest process that was measured: 64 payments/s.
MAX_PAYMENTS = 8192
MAX_CALLBACKS = 8192
MAX_CALLBACK_BYTES = 16 * 1024 * 1024
# A restore takes minutes, and goes back to a backup that is minutes old.
WEBHOOK_AGE = timedelta(minutes=15)
# 15 minutes at 36 webhooks/s; one takes about half a KiB.
MAX_WEBHOOKS = 32_768

CallbackKey = tuple[uuid.UUID | None, bytes]


@dataclass
class KnownPayment:
    """A payment whose intent was committed, and what became of its push, if it ended."""

    intent: Intent
    at: datetime
    outcome: PushOutcome | None = None


@dataclass(frozen=True)
class KnownWebhook:
    """A webhook that an endpoint answered with 2xx."""

    webhook_id: str
    payment: uuid.UUID
    merchant: str
    type: str | None
    receipt: str | None
    at: datetime

    @classmethod
    def of(cls, delivery: Delivery, at: datetime) -> KnownWebhook:
        """What its body told the merchant."""
        body = json.loads(delivery.body)
        receipt = (body.get("metadata") or {}).get("MpesaReceiptNumber")
        return cls(
            delivery.webhook_id,
            delivery.public_id,
            delivery.merchant,
            body.get("type"),
            receipt,
            at,
        )

    @property
    def about(self) -> str:
        """All but the payment, as `lost_rows` stores it: the same from whichever process."""
        told = {
            "merchant": self.merchant,
            "type": self.type,
            "receipt": self.receipt,
            "webhook_id": self.webhook_id,
        }
        return json.dumps(told)


@dataclass(frozen=True)
class Memory:
    """A copy of what is remembered, to be compared with a database."""

    payments: list[KnownPayment] = field(default_factory=list)
    callbacks: dict[CallbackKey, NewCallback] = field(default_factory=dict)
    webhooks: list[KnownWebhook] = field(default_factory=list)


class Acknowledged:
    """Remembers; every thread of the process may tell it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._payments: OrderedDict[uuid.UUID, KnownPayment] = OrderedDict()
        self._callbacks: OrderedDict[CallbackKey, NewCallback] = OrderedDict()
        self._callback_bytes = 0
        self._webhooks: OrderedDict[str, KnownWebhook] = OrderedDict()

    def intent(self, intent: Intent, at: datetime) -> None:
        """An intent was committed."""
        with self._lock:
            self._payments[intent.id] = KnownPayment(intent, at)
            while len(self._payments) > MAX_PAYMENTS:
                self._payments.popitem(last=False)

    def outcome(self, payment: uuid.UUID, outcome: PushOutcome) -> None:
        """A push ended; its payment's intent is older."""
        with self._lock:
            known = self._payments.get(payment)
            if known is not None:
                known.outcome = outcome

    def callbacks(self, kept: Sequence[NewCallback]) -> None:
        """Callbacks were committed, and are about to be answered 200."""
        with self._lock:
            for callback in kept:
                key = (callback.payment, callback.body_sha256)
                if key not in self._callbacks:
                    self._callbacks[key] = callback
                    self._callback_bytes += len(callback.body)
            while len(self._callbacks) > MAX_CALLBACKS or self._callback_bytes > MAX_CALLBACK_BYTES:
                self._forget_callback()

    def webhook(self, delivered: KnownWebhook) -> None:
        """An endpoint took a webhook; the row of its delivery had been committed before."""
        with self._lock:
            self._webhooks[delivered.webhook_id] = delivered
            self._webhooks.move_to_end(delivered.webhook_id)
            while len(self._webhooks) > MAX_WEBHOOKS:
                self._webhooks.popitem(last=False)

    def trim(self, now: datetime) -> None:
        """The database holds all of it at this moment: forget what is old."""
        before, webhooks_before = now - AGE, now - WEBHOOK_AGE
        with self._lock:
            while self._payments and next(iter(self._payments.values())).at < before:
                self._payments.popitem(last=False)
            while self._callbacks and next(iter(self._callbacks.values())).received_at < before:
                self._forget_callback()
            while self._webhooks and next(iter(self._webhooks.values())).at < webhooks_before:
                self._webhooks.popitem(last=False)

    def copy(self) -> Memory:
        """What is remembered now, the oldest first."""
        with self._lock:
            return Memory(
                list(self._payments.values()),
                dict(self._callbacks),
                list(self._webhooks.values()),
            )

    def _forget_callback(self) -> None:
        _, forgotten = self._callbacks.popitem(last=False)
        self._callback_bytes -= len(forgotten.body)

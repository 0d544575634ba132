"""Starts the payments, each client in a thread, and watches them from every side."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from mpesa_demo.client import (
    Ledger,
    Merchant,
    payments_under_way,
    read_ledger,
)
from mpesa_demo.judgement import Observed, cannot_change, find_problems
from mpesa_demo.receiver import Receiver
from mpesa_demo.scenarios import Scenario
from mpesa_gateway.clients.json_call import Answer
from mpesa_gateway.store.callbacks import CallbackRow
from mpesa_gateway.store.callbacks import list_newest as list_callbacks
from mpesa_gateway.store.pool import Pool

# One after the other, so that an eye can follow.
START_EVERY_S = 0.05
MAX_CALLBACKS = 1000


@dataclass
class Payment:
    """A payment under way. `over_after_s` is set when it first was as it must be."""

    scenario: Scenario
    request: dict[str, Any]
    answers: list[Answer] = field(default_factory=list)
    error: str | None = None
    started_at: float | None = None
    observed: Observed = field(default_factory=Observed)
    problems: list[str] = field(default_factory=lambda: ["it was not looked at"])
    over_after_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """From its start until it was as it must be, or until now."""
        if self.over_after_s is not None:
            return self.over_after_s
        return 0.0 if self.started_at is None else time.monotonic() - self.started_at

    @property
    def is_over(self) -> bool:
        """Whether nothing more is awaited, for good or ill."""
        return not self.problems or cannot_change(self.scenario, self.observed)


@dataclass(frozen=True)
class Snapshot:
    """All that there is to see at one moment."""

    views: Sequence[dict[str, Any]]
    callbacks: Sequence[CallbackRow]
    ledger: Ledger


class Payments:
    """The payments of some scenarios, in their order."""

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        merchant: Merchant,
        receiver: Receiver,
        simulator_url: str,
        pool: Pool,
    ) -> None:
        self._merchant = merchant
        self._receiver = receiver
        self._simulator_url = simulator_url
        self._pool = pool
        self.all = [Payment(it, merchant.request_of(it)) for it in scenarios]
        self.snapshot = Snapshot([], [], Ledger([], [], [], []))

    def start(self) -> None:
        """Let every client ask. The one that will wait longest is the first."""
        slow_first = sorted(self.all, key=lambda it: it.scenario.name != "hang")
        for number, payment in enumerate(slow_first):
            for _ in range(payment.scenario.clients):
                thread = threading.Thread(
                    target=self._ask, args=[payment, number * START_EVERY_S], daemon=True
                )
                thread.start()

    def _ask(self, payment: Payment, wait_s: float) -> None:
        time.sleep(wait_s)
        payment.started_at = payment.started_at or time.monotonic()
        try:
            payment.answers.append(self._merchant.initiate(payment.request))
        except (OSError, HTTPException) as error:
            payment.error = f"{type(error).__name__}: {error}"

    def look(self, *, thoroughly: bool = False) -> None:
        """See where each payment is; `thoroughly` reads each of them alone, with its conflicts.

        Raises OSError, HTTPException, UnavailableError when somebody does not answer.
        """
        with self._pool.connection("demo.look") as conn:
            callbacks = list_callbacks(conn, state=None, limit=MAX_CALLBACKS)
        ledger = read_ledger(self._simulator_url)
        self.snapshot = Snapshot(self._read_views(thoroughly=thoroughly), callbacks, ledger)
        for payment in self.all:
            payment.observed = self._observe(payment, self.snapshot)
            payment.problems = find_problems(payment.scenario, payment.observed)
            if not payment.is_over:
                payment.over_after_s = None
            elif payment.over_after_s is None:
                payment.over_after_s = payment.elapsed_s

    def _read_views(self, *, thoroughly: bool) -> list[dict[str, Any]]:
        """A listing leaves conflicts out, so where one is expected the payment is read alone."""
        alone = {
            it.request["idempotency_key"]
            for it in self.all
            if thoroughly or it.scenario.expected.conflict is not None
        }
        return [
            self._merchant.transaction(view["transaction_id"])
            if view["idempotency_key"] in alone
            else view
            for view in self._merchant.transactions()
        ]

    def _observe(self, payment: Payment, snapshot: Snapshot) -> Observed:
        key = payment.request["idempotency_key"]
        view = next((it for it in snapshot.views if it["idempotency_key"] == key), None)
        transaction_id = view["transaction_id"] if view is not None else None
        phone, ledger = payment.scenario.phone, snapshot.ledger
        return Observed(
            answers=tuple(payment.answers),
            error=payment.error,
            view=view,
            webhooks=tuple(
                it for it in self._receiver.all() if it.transaction_id == transaction_id
            ),
            pushes=sum(push["phone"] == phone for push in ledger.pushes),
            debits=tuple(debit for debit in ledger.debits if debit["phone"] == phone),
            queries=sum(query["phone"] == phone for query in ledger.queries),
            quarantined=tuple(
                row.outcome or ""
                for row in snapshot.callbacks
                if row.state == "QUARANTINED" and str(row.transaction_id) == transaction_id
            ),
        )

    def are_over(self) -> bool:
        """Whether every payment is, and Safaricom has nothing more to say."""
        return all(it.is_over for it in self.all) and payments_under_way(self._simulator_url) == 0

"""What three parties saw of a load, held against the gateway's database.

The clients know what they were answered, Safaricom's ledger what it charged and posted, the
merchant's endpoint what it was told. Nothing may be lost and nothing doubled.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.neighbour import Neighbour
from harness.receiver import Received
from harness.release import Release
from harness.waiting import wait_for

Row = dict[str, Any]
SETTLE_TIMEOUT_S = 60.0
NOT_SENT = "https://mpesa-gateway.dev/problems/not-sent"


@dataclass(frozen=True)
class Books:
    """All that is known about the phones of one load. `ledger` is from the load's beginning."""

    clients: dict[str, list[Row]]
    ledger: dict[str, list[Row]]
    transactions: list[Row]
    callbacks: list[Row]
    deliveries: list[Row]
    ends: list[Row]
    webhooks: list[Received]

    # --- what happened to requests ---------------------------------------------------------------

    def lost_callbacks(self) -> list[Row]:
        """Callbacks without a 200, whoever posted them: from when to when, and what was wrong."""
        direct = [
            {"began": it["started"], "ended": it["started"] + it["seconds"], **it}
            for it in self.clients["callbacks"]
        ]
        # The ledger notes a callback when its posting has ended.
        safaricoms = []
        for it in self.ledger["callbacks"]:
            ended = datetime.fromisoformat(it["at"]).timestamp()
            safaricoms.append({"began": ended - it["duration_ms"] / 1000, "ended": ended, **it})
        said = ("began", "ended", "kept", "status", "error")
        return [
            {name: it[name] for name in said if name in it}
            for it in [*direct, *safaricoms]
            if it["status"] != 200
        ]

    def answered_callbacks(self) -> int:
        """Callbacks with a 200."""
        posted = [*self.clients["callbacks"], *self.ledger["callbacks"]]
        return sum(it["status"] == 200 for it in posted)

    def troubled_initiates(self) -> list[Row]:
        """Payments whose client had to ask more than once, or was not answered 201."""
        return [it for it in self.clients["initiates"] if it["troubles"] or it["status"] != 201]

    # --- nothing lost, nothing doubled -----------------------------------------------------------

    def check(self, *, repeats_allowed: bool = False, unsent_allowed: bool = False) -> None:
        """`repeats_allowed`: a killed worker may repeat a webhook, with the same id and bytes.

        `unsent_allowed`: what an API had not sent when it was killed is over, and its client is
        told to ask again with a new key (spec: 503 and `not_sent`).
        """
        self._check_payments(unsent_allowed=unsent_allowed)
        self._check_callbacks()
        self._check_webhooks(repeats_allowed=repeats_allowed)

    def _check_payments(self, *, unsent_allowed: bool) -> None:
        known = {it["internal_transaction_id"]: it for it in self.transactions}
        for payment in self.clients["initiates"]:
            if not (unsent_allowed and self._is_unsent(payment)):
                assert payment["status"] == 201, f"a client was never answered: {payment}"
            assert known[payment["transaction_id"]]["phone"] == payment["phone"]
        phones = [it["phone"] for it in self.transactions]
        assert len(phones) == len(set(phones)), "two payments for one key"
        assert set(phones) == {it["phone"] for it in self.clients["initiates"]}
        accepted = [it["phone"] for it in self.ledger["pushes"] if it["accepted"]]
        assert twice(accepted) == [], "two accepted pushes for one key"
        charged = {(it["phone"], it["amount"], it["receipt"]) for it in self.ledger["debits"]}
        assert twice(it["phone"] for it in self.ledger["debits"]) == [], "charged twice"
        completed = {
            (it["phone"], int(it["amount"]), it["receipt"])
            for it in self.transactions
            if it["status"] == "COMPLETED"
        }
        # A payment that only a query could settle has no receipt, and its debit has one.
        unnamed = {(phone, amount) for phone, amount, receipt in completed if receipt is None}
        assert {it[:2] for it in charged} == {it[:2] for it in completed}, "lost or invented"
        assert {it for it in charged if it[:2] not in unnamed} == {
            it for it in completed if it[2] is not None
        }
        assert [it["count"] for it in self.ends] == [1] * len(self.transactions), "not one end"

    def _is_unsent(self, payment: Row) -> bool:
        """Whether client, database and Safaricom agree that nothing was sent."""
        told = payment["status"] == 503 and NOT_SENT in (payment["refusal"] or "")
        ended = any(
            it["internal_transaction_id"] == payment["transaction_id"] and it["status"] == "FAILED"
            for it in self.transactions
        )
        pushed = any(it["phone"] == payment["phone"] for it in self.ledger["pushes"])
        return told and ended and not pushed

    def _check_callbacks(self) -> None:
        assert {it["state"] for it in self.callbacks} <= {"APPLIED"}, "not applied"
        kept = sum(it["copies"] for it in self.callbacks)
        answered, lost = self.answered_callbacks(), len(self.lost_callbacks())
        # One that was committed may have lost its answer, never the other way round.
        assert answered <= kept <= answered + lost, f"{kept} kept, {answered} answered 200"

    def _check_webhooks(self, *, repeats_allowed: bool) -> None:
        told: dict[str, set[tuple[str, bytes]]] = collections.defaultdict(set)
        finals = 0
        for request in self.webhooks:
            kind = _type(request)
            if kind in ("transaction.completed", "transaction.failed"):
                finals += 1
                told[_transaction(request)].add((request.webhook_id, request.body))
        ended = {it["internal_transaction_id"] for it in self.transactions}
        assert set(told) == ended, "a merchant was not told"
        assert {len(forms) for forms in told.values()} <= {1}, "two forms of one webhook"
        assert {it["state"] for it in self.deliveries} == {"DELIVERED"}
        if not repeats_allowed:
            assert finals == len(told), "a merchant was told twice"


def twice(values: Iterable[str]) -> list[str]:
    """Those that are there more than once."""
    return [value for value, count in collections.Counter(values).items() if count > 1]


def _type(request: Received) -> str:
    return str(json.loads(request.body)["type"])


def _transaction(request: Received, secret: str = "") -> str:
    """Which payment it is about; with a secret, both signatures are checked too."""
    body = request.verify(secret) if secret else json.loads(request.body)
    return str(body["transaction_id"])


def open_books(
    release: Release, shop: Neighbour, simulator: str, report: dict[str, Any], since: int
) -> Books:
    """Wait until every payment of the load has ended and was told, then read everything."""
    secret = release.app_secret()["MPESA_WEBHOOK_SECRET"]
    phones = [it["phone"] for it in report["initiates"]]
    within = f"phone BETWEEN '{min(phones)}' AND '{max(phones)}'"
    ours = f"(SELECT id FROM transactions WHERE {within})"
    wait_until_settled(release, ours)
    ledger = shop.fetch("GET", f"{simulator}/ledger?since={since}").json()
    transactions = release.rows(
        "SELECT internal_transaction_id, phone, amount, status, receipt, settled_by"
        f" FROM transactions WHERE {within}"
    )
    wanted = {it["internal_transaction_id"] for it in transactions}
    mine = set(phones)
    return Books(
        clients=report,
        ledger={
            kind: [it for it in ledger[kind] if it["phone"] in mine]
            for kind in ("pushes", "debits", "callbacks")
        },
        transactions=transactions,
        callbacks=release.rows(
            f"SELECT state, outcome, copies FROM callbacks WHERE transaction_id IN {ours}"
        ),
        deliveries=release.rows(f"SELECT state FROM deliveries WHERE transaction_id IN {ours}"),
        ends=release.rows(
            "SELECT transaction_id, count(*) FROM transaction_events"
            f" WHERE kind IN ('completed', 'failed') AND transaction_id IN {ours}"
            " GROUP BY transaction_id"
        ),
        # The endpoint remembers earlier loads; those signatures are too old to be verified now.
        webhooks=[
            it
            for it in shop.webhooks()
            if _transaction(it) in wanted and _transaction(it, secret) in wanted
        ],
    )


def wait_until_settled(release: Release, ours: str) -> None:
    """Until nothing is open any more. Fails with what is."""
    queries = [
        f"SELECT {columns} FROM {table} WHERE {column} IN {ours} AND {is_open}"
        for table, column, columns, is_open in (
            ("transactions", "id", "status, push_state, attention", "status = 'PENDING'"),
            ("deliveries", "transaction_id", "attempts_made, next_attempt_at", "state = 'PENDING'"),
            ("callbacks", "transaction_id", "attempts, next_attempt_at", "state = 'RECEIVED'"),
        )
    ]
    open_rows: list[Row] = []

    def none_is_open() -> bool:
        open_rows[:] = [row for query in queries for row in release.rows(query)]
        return not open_rows

    try:
        wait_for(none_is_open, timeout_s=SETTLE_TIMEOUT_S)
    except AssertionError as error:
        attempts = release.rows(
            "SELECT outcome, error_message, response_time_ms, attempted_at FROM webhook_attempts"
            f" WHERE NOT success AND transaction_id IN {ours} ORDER BY id DESC LIMIT 5"
        )
        raise AssertionError(f"still open: {open_rows[:5]}; attempts: {attempts}") from error

"""Three witnesses that the gateway cannot touch, held against its database: the invariants.

The client's history, the simulator's ledger and the merchants' log say what happened. S1 to S11
and L1 to L4 are docs/reliability.md's names for what must be true of it.
"""

from __future__ import annotations

import collections
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import requests

from harness.crash import SHOP, Asked, CrashStack, Row
from harness.receiver import Received
from harness.settings import API_KEY, PASSKEY

FINAL_KINDS = ("transaction.completed", "transaction.failed")
ACK_LIMIT_MS = 1000
# What may be nowhere but where it belongs.
CANARIES = (API_KEY, PASSKEY, "test-consumer-secret", "duka-webhook-secret", "duka-consumer-secret")


class Safaricom(Protocol):
    """Whoever keeps the ledger."""

    def ledger(self) -> dict[str, list[Row]]: ...


class Endpoint(Protocol):
    """Whoever keeps what merchants saw."""

    @property
    def requests(self) -> list[Received]: ...


class Stack(Protocol):
    """A system under test, and its witnesses."""

    asked: list[Asked]
    posted: list[Row]
    shop_secrets: list[str]

    @property
    def simulator(self) -> Safaricom: ...
    @property
    def receiver(self) -> Endpoint: ...
    def rows(self, query: str, *values: Any) -> list[Row]: ...
    def post(self, asked: Asked, **other: str) -> requests.Response: ...
    def logs(self) -> str: ...


@dataclass(frozen=True)
class Evidence:
    """Everything that is known about some payments. `faults`: how many processes died of them."""

    asked: list[Asked]
    ledger: dict[str, list[Row]]
    posted: list[Row]
    webhooks: list[Received]
    transactions: list[Row]
    callbacks: list[Row]
    deliveries: list[Row]
    attempts: list[Row]
    ends: list[Row]
    secrets: dict[str, list[str]]
    faults: int
    expected_webhooks: int

    def problems(self) -> list[str]:
        """Every broken promise, beginning with its name; empty when all is well."""
        checks = (
            self._callbacks,
            self._pushes,
            self._debits,
            self._ends,
            self._told,
            self._copies,
            self._answers,
            self._attempts,
            self._owners,
        )
        return [problem for check in checks for problem in check()]

    def _callbacks(self) -> Iterator[str]:
        """S1: every callback answered 200 is kept byte for byte, and applied or set aside."""
        kept = collections.Counter[bytes]()
        for row in self.callbacks:
            kept[bytes(row["body"])] += row["copies"]
            if row["state"] == "RECEIVED":
                yield "S1 a callback was neither applied nor set aside"
        posted = [*self.ledger["callbacks"], *self.posted]
        answered = collections.Counter(it["body"].encode() for it in posted if it["status"] == 200)
        for body, count in answered.items():
            if kept[body] < count and not self._is_explained(body, kept[body]):
                yield f"S1 {count} callbacks answered 200, {kept[body]} kept"
        for it in self.ledger["callbacks"]:
            if it["status"] == 200 and it["duration_ms"] >= ACK_LIMIT_MS:
                yield f"L2 a callback waited {it['duration_ms']} ms for its 200"

    def _is_explained(self, body: bytes, kept: int) -> bool:  # noqa: ARG002 - an override
        """Whether fewer copies of a callback may be there than were answered 200."""
        return False

    def _pushes(self) -> Iterator[str]:
        """S2: at most one accepted push, and at most one debit, per key."""
        for kind in ("pushes", "debits"):
            entries = [it for it in self.ledger[kind] if it.get("accepted", True)]
            for phone, count in collections.Counter(it["phone"] for it in entries).items():
                if count > 1:
                    yield f"S2 {count} {kind} for one key ({phone[-4:]})"
        keys = collections.Counter(row["phone"] for row in self.transactions)
        yield from (f"S2 {count} payments for one key" for count in keys.values() if count > 1)

    def _debits(self) -> Iterator[str]:
        """S3: COMPLETED with a debit of that amount; a debit that we were told of is no failure."""
        debits = {it["phone"]: it for it in self.ledger["debits"]}
        heard = {it["phone"] for it in self.ledger["callbacks"] if it["status"] == 200}
        for row in self.transactions:
            debit = debits.get(row["phone"])
            if row["status"] == "COMPLETED":
                if debit is None:
                    yield "S3 COMPLETED, and nobody was charged"
                elif int(row["amount"]) != debit["amount"]:
                    yield "S3 COMPLETED with another amount than was charged"
            elif row["status"] == "FAILED" and debit is not None:
                yield "S3 charged, and the payment is FAILED"
            elif row["status"] == "PENDING" and row["phone"] in heard:
                yield "S3 a callback was answered 200, and the payment is still open"

    def _ends(self) -> Iterator[str]:
        """S4: one terminal transition, and none without."""
        ends = {row["transaction_id"]: row["count"] for row in self.ends}
        for row in self.transactions:
            wanted = 0 if row["status"] == "PENDING" else 1
            if ends.get(row["id"], 0) != wanted:
                yield f"S4 {row['status']} with {ends.get(row['id'], 0)} ends"

    def _told(self) -> Iterator[str]:
        """S5: one delivery for each end, and the merchant was told with a good signature."""
        deliveries = collections.Counter(
            row["transaction_id"] for row in self.deliveries if row["type"] in FINAL_KINDS
        )
        told = {it.webhook_id for it in self.webhooks}
        for row in self.transactions:
            wanted = 0 if row["status"] == "PENDING" else 1
            if deliveries[row["id"]] != wanted:
                yield f"S5 {row['status']} with {deliveries[row['id']]} deliveries"
        for row in self.deliveries:
            if row["state"] != "DELIVERED":
                yield f"S5 a delivery is {row['state']}"
            elif row["webhook_id"] not in told:
                yield "S5 DELIVERED, and the merchant saw nothing"

    def _copies(self) -> Iterator[str]:
        """S6: repeats have the same id and bytes, and are no more than the faults explain."""
        forms: dict[str, set[bytes]] = collections.defaultdict(set)
        copies = collections.Counter[str]()
        for it in self.webhooks:
            forms[it.webhook_id].add(hashlib.sha256(it.body).digest())
            copies[it.webhook_id] += 1
        yield from ("S6 two bodies under one webhook-id" for it in forms.values() if len(it) > 1)
        allowed = self.expected_webhooks + self.faults
        yield from (f"S6 {count} copies" for count in copies.values() if count > allowed)

    def _answers(self) -> Iterator[str]:
        """S7: all answers to one key agree."""
        for asked in self.asked:
            if not asked.answers:
                yield f"S7 a client was never answered: {asked.troubles[-3:]}"
            if len({(status, body.get("transaction_id")) for status, body in asked.answers}) > 1:
                yield "S7 one key, two answers"

    def _attempts(self) -> Iterator[str]:
        """S8: every request that a merchant saw has an attempt row."""
        rows = collections.Counter(row["webhook_id"] for row in self.attempts)
        seen = collections.Counter(it.webhook_id for it in self.webhooks)
        yield from (
            f"S8 {count} requests, {rows[webhook]} attempt rows"
            for webhook, count in seen.items()
            if rows[webhook] < count
        )

    def _owners(self) -> Iterator[str]:
        """S9: what a merchant is told is signed with its own secret and about its own payment."""
        owners = {str(row["internal_transaction_id"]): row for row in self.transactions}
        paths = {asked.path: asked for asked in self.asked}
        for it in self.webhooks:
            asked = paths[it.path]
            body = _verified(it, self.secrets[asked.merchant])
            if body is None:
                yield "S9 no secret of this merchant fits the signature"
                continue
            row = owners.get(body["transaction_id"])
            if row is None or (row["merchant"], row["phone"]) != (asked.merchant, asked.phone):
                yield "S9 told about another merchant's payment"


def _verified(request: Received, secrets: list[str]) -> Any:
    for secret in reversed(secrets):
        try:
            return request.verify(secret)
        except Exception:  # noqa: BLE001, S112 - the library has errors of its own for each defect
            continue
    return None


def gather(stack: Stack, asked: list[Asked], *, faults: int, webhooks: int) -> Evidence:
    """Read what the witnesses and the database know about these payments."""
    phones = [it.phone for it in asked]
    mine = set(phones)
    paths = {it.path for it in asked}
    ours = "SELECT id FROM transactions WHERE phone = ANY(%s)"
    ledger = stack.simulator.ledger()
    return Evidence(
        asked=asked,
        ledger={
            kind: [it for it in ledger[kind] if it["phone"] in mine]
            for kind in ("pushes", "debits", "callbacks")
        },
        posted=[it for it in stack.posted if it["phone"] in mine],
        webhooks=[it for it in list(stack.receiver.requests) if it.path in paths],
        transactions=stack.rows("SELECT * FROM transactions WHERE phone = ANY(%s)", phones),
        callbacks=stack.rows(f"SELECT * FROM callbacks WHERE transaction_id IN ({ours})", phones),
        deliveries=stack.rows(f"SELECT * FROM deliveries WHERE transaction_id IN ({ours})", phones),
        attempts=stack.rows(
            "SELECT a.*, d.webhook_id FROM webhook_attempts a"
            " JOIN deliveries d ON d.id = a.delivery_id"
            f" WHERE d.transaction_id IN ({ours})",
            phones,
        ),
        ends=stack.rows(
            "SELECT transaction_id, count(*) FROM transaction_events"
            f" WHERE kind IN ('completed', 'failed') AND transaction_id IN ({ours})"
            " GROUP BY transaction_id",
            phones,
        ),
        secrets={"default": [API_KEY], SHOP: stack.shop_secrets},
        faults=faults,
        expected_webhooks=webhooks,
    )


def check_counters(stack: CrashStack) -> list[str]:
    """S11: before anybody died, the counters say what the witnesses and the database say."""
    counted = stack.counters()
    ledger = stack.simulator.ledger()
    truth = {
        'mpesa_callbacks_total{outcome="received"}': sum(
            it["status"] == 200 for it in [*ledger["callbacks"], *stack.posted]
        ),
        'mpesa_stk_push_total{outcome="accepted"}': sum(it["accepted"] for it in ledger["pushes"]),
        "mpesa_webhook_attempts_total": len(stack.receiver.requests),
        **{
            f'mpesa_transactions_total{{status="{row["status"]}"}}': row["count"]
            for row in stack.rows(
                "SELECT status, count(*) FROM transactions WHERE status <> 'PENDING'"
                " GROUP BY status UNION ALL SELECT 'PENDING', count(*) FROM transactions"
            )
        },
    }
    said = {
        name: sum(value for series, value in counted.items() if series.startswith(name))
        for name in truth
    }
    return [
        f"S11 {name}: counted {said[name]:g}, it was {truth[name]}"
        for name in truth
        if said[name] != truth[name]
    ]


def check_whole(stack: Stack) -> list[str]:
    """What only the whole run can show: S4's walls, S7's other body, S10's leaks, L3."""
    return [*_walls(stack), *_other_body(stack), *_leaks(stack), *_leases(stack)]


def _walls(stack: Stack) -> Iterator[str]:
    ended = stack.rows("SELECT id FROM transactions WHERE status <> 'PENDING' LIMIT 1")
    for row in ended:
        try:
            stack.rows(
                "UPDATE transactions SET status = 'PENDING', finished_at = NULL,"
                " settled_by = NULL, failure_reason = NULL WHERE id = %s RETURNING id",
                row["id"],
            )
        except psycopg.errors.RaiseException:
            continue
        yield "S4 an ended payment could be opened again"


def _other_body(stack: Stack) -> Iterator[str]:
    asked = stack.asked[-1]
    status = stack.post(asked, amount="999").status_code
    if status != 422:
        yield f"S7 one key, another amount: answered {status}"


def _leaks(stack: Stack) -> Iterator[str]:
    text = stack.logs()
    pushes = stack.simulator.ledger()["pushes"]
    tokens = [it["callback_url"].rsplit("/", 1)[-1] for it in pushes if it["callback_url"]]
    phones = [asked.phone for asked in stack.asked]
    if any(value in text for value in CANARIES):
        yield "S10 a secret is in a log"
    if _stands_in(text, tokens, "[0-9a-f]{64}"):
        yield "S10 a token is in a log"
    if _stands_in(text, phones, "[0-9]{12}"):
        yield "S10 a phone is in a log"


def _stands_in(text: str, values: Iterable[str], form: str) -> bool:
    """Whether one of many values, all of one form, is anywhere in a long text."""
    return not set(values).isdisjoint(re.findall(f"(?=({form}))", text))


def _leases(stack: Stack) -> Iterator[str]:
    for table, column in (
        ("transactions", "push_lease_until"),
        ("transactions", "query_lease_until"),
        ("deliveries", "lease_until"),
    ):
        (row,) = stack.rows(
            f"SELECT count(*) FROM {table} WHERE {column} < now() - interval '5 seconds'"
        )
        if row["count"]:
            yield f"L3 {row['count']} leases in {table} ended and nobody took over"

"""What must never hold, whatever happens, and what must hold when all is quiet."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from typing import Any

from harness.settings import API_KEY
from mpesa_gateway.domain.signature import body_signature
from simulation.safaricom import Prompt, Truth
from simulation.world import SHOP, World

FINAL_TYPES = ("transaction.completed", "transaction.failed")


def never(world: World) -> Iterator[str]:
    """Looked for after every step."""
    yield from _charged_twice(world)
    yield from _states(world)
    yield from _kept(world)
    yield from _webhooks(world)


def at_the_end(world: World) -> Iterator[str]:
    """Demanded once every fault has healed and time has passed."""
    yield from never(world)
    if not world.is_quiet():
        yield f"L1 still open: {world.open_work()}"
    yield from _truths(world)
    yield from _told(world)


def _charged_twice(world: World) -> Iterator[str]:
    pushes = collections.Counter(it.phone for it in world.safaricom.books.prompts)
    yield from (f"S2 {count} accepted pushes for one key" for count in pushes.values() if count > 1)
    rows = collections.Counter(row["phone"] for row in _transactions(world))
    yield from (f"S2 {count} payments for one key" for count in rows.values() if count > 1)


def _states(world: World) -> Iterator[str]:
    rows = {row["phone"]: row for row in _transactions(world)}
    for payment in world.payments:
        row = rows.get(payment.phone)
        if row is None:
            continue
        if payment.last_status != "PENDING" and row["status"] != payment.last_status:
            yield f"S4 {payment.last_status} became {row['status']}"
        payment.last_status = row["status"]
        if row["ends"] != (row["status"] != "PENDING"):
            yield f"S4 {row['status']} with {row['ends']} ends"
        if row["deliveries"] != (row["status"] != "PENDING"):
            yield f"S5 {row['status']} with {row['deliveries']} deliveries"
        prompt = world.safaricom.prompt_of(payment.phone)
        if row["status"] == "COMPLETED" and not _is_paid(prompt, row["amount"]):
            yield f"S3 COMPLETED, and the truth is {prompt}"


def _is_paid(prompt: Prompt | None, amount: object) -> bool:
    return prompt is not None and prompt.truth is Truth.PAID and prompt.amount == amount


def _kept(world: World) -> Iterator[str]:
    kept = {
        (row["phone"], bytes(row["sha"]))
        for row in world.gateway.rows(
            "SELECT t.phone, sha256(c.body) AS sha FROM callbacks c"
            " LEFT JOIN transactions t ON t.id = c.transaction_id"
        )
    }
    bodies = {sha for _, sha in kept}
    for posted in world.posted:
        # By its token, or on the plain path once it is matched; the body is there in any case.
        if posted.sha256 not in bodies:
            yield "S1 a callback that was answered 200 is not kept"


def _webhooks(world: World) -> Iterator[str]:
    forms: dict[str, set[bytes]] = collections.defaultdict(set)
    seen = collections.Counter[str]()
    for it in world.receiver.requests:
        forms[it.webhook_id].add(it.body)
        seen[it.webhook_id] += 1
        merchant = json.loads(it.body)["merchant"]
        secrets = world.secrets if merchant == SHOP else [API_KEY]
        if it.headers["x-signature"] not in {body_signature(key, it.body) for key in secrets}:
            yield "S9 signed with no secret of its merchant"
    yield from ("S6 two bodies under one webhook-id" for it in forms.values() if len(it) > 1)
    rows = {
        row["webhook_id"]: row["count"]
        for row in world.gateway.rows(
            "SELECT d.webhook_id, count(*) FROM webhook_attempts a"
            " JOIN deliveries d ON d.id = a.delivery_id GROUP BY d.webhook_id"
        )
    }
    yield from (
        f"S8 {count} requests, {rows.get(name, 0)} attempt rows"
        for name, count in seen.items()
        if rows.get(name, 0) < count
    )


def _truths(world: World) -> Iterator[str]:
    """Everybody was called back: no debit is left untold."""
    for row in _transactions(world):
        prompt = world.safaricom.prompt_of(row["phone"])
        truth = prompt.truth if prompt else None
        if truth is Truth.PAID and row["status"] == "FAILED" and not row["conflicts"]:
            yield "S3 charged, FAILED, and no conflict says so"
        if row["status"] == "PENDING" and not row["attention"]:
            yield f"S3 still pending, truth {truth}, and nobody is asked to look"
    known = {row["phone"] for row in _transactions(world)}
    yield from ("S2 a push of an unknown payment" for it in world.safaricom.books.prompts
                if it.phone not in known)  # fmt: skip
    open_rows = world.gateway.rows("SELECT count(*) FROM callbacks WHERE state = 'RECEIVED'")
    if open_rows[0]["count"]:
        yield "S1 a callback is neither applied nor in quarantine"


def _told(world: World) -> Iterator[str]:
    heard = {it.webhook_id for it in world.receiver.requests}
    for row in world.gateway.rows("SELECT state, webhook_id, type FROM deliveries"):
        if row["state"] == "DELIVERED" and row["webhook_id"] not in heard:
            yield "S5 DELIVERED, and the merchant saw nothing"
        if row["state"] not in ("DELIVERED", "EXHAUSTED"):
            yield f"S5 a delivery is {row['state']}"


def _transactions(world: World) -> list[dict[str, Any]]:
    return world.gateway.rows(
        "SELECT t.*, (SELECT count(*) FROM transaction_events e WHERE e.transaction_id = t.id"
        " AND e.kind IN ('completed', 'failed')) AS ends,"
        " (SELECT count(*) FROM deliveries d WHERE d.transaction_id = t.id"
        " AND d.type IN ('transaction.completed', 'transaction.failed')) AS deliveries,"
        " (SELECT count(*) FROM conflicts c WHERE c.transaction_id = t.id) AS conflicts"
        " FROM transactions t"
    )

"""The crash suite's checker for a run in which anything may have failed at any time.

Only what the faults can explain is allowed, and each time the explanation is looked for: a lost
callback in the ledger, a repeat in the attempts and the nemesis's log, an end in a conflict.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from harness.chaos_endpoints import AWAY_PATH, TROUBLED_PATH
from harness.chaos_losses import Losses, gather_losses
from harness.chaos_stack import SETTINGS, ChaosStack
from harness.evidence import Evidence, check_whole, gather
from harness.nemesis import Done
from harness.receiver import Received

# Safaricom says one thing when asked and another when it calls back.
CONTRADICTORY = "7002"
# These faults reach a worker between its request and its commit, directly or by their wake.
HARMING = (
    *("kill", "stop", "restart", "terminate", "swallow", "cut", "frozen", "slow"),
    *("refuse", "connections", "disk", "freeze", "fail over", "restore"),
)
# A try without a result is found by its lease; a shadow of a fault is not longer than that.
LEASE_S = 15.0
SLACK_S = 2.0
TRIES = 1 + len(SETTINGS["webhook_retry_schedule"].split(","))


@dataclass(frozen=True)
class ChaosEvidence(Evidence):
    """What is known about the payments of a chaos run. `answers`: of webhooks, by their id."""

    conflicts: frozenset[int]
    answers: dict[str, list[int | None]]
    done: list[Done]
    losses: Losses

    def lost(self) -> list[str]:
        """What must be zero: S1, and money that was taken and that we know nothing of."""
        return [*self._callbacks(), *self._debits(), *self._unknown_to_us()]

    def doubled(self) -> list[str]:
        """What must be zero: S2."""
        return list(self._pushes())

    def problems(self) -> list[str]:
        return [*super().problems(), *self._unknown_to_us()]

    def repeats(self) -> int:
        """Webhooks that an endpoint had taken already."""
        taken = [sum(it == 200 for it in answers) for answers in self.answers.values()]
        return sum(it - 1 for it in taken if it > 1)

    def _callbacks(self) -> Iterator[str]:
        yield from (it for it in super()._callbacks() if not it.startswith("L2"))

    def _is_explained(self, body: bytes, kept: int) -> bool:
        """Where rows were lost: it is written again without its copies, or an operator is told."""
        phones = {it["phone"] for it in self.ledger["callbacks"] if it["body"].encode() == body}
        touched = [it for it in self.asked if it.phone in phones and self.losses.touch(it)]
        return bool(touched) and (kept > 0 or self.losses.name_callback(body))

    def _unknown_to_us(self) -> Iterator[str]:
        """S1: each payment that a client was told of, and each debit, has its row."""
        known = {row["phone"]: str(row["internal_transaction_id"]) for row in self.transactions}
        for asked in self.asked:
            for payment in {body["transaction_id"] for _, body in asked.answers}:
                if payment != known.get(asked.phone) and not (
                    self.losses.touch(asked) and self.losses.name_payment(payment)
                ):
                    yield f"S1 a client has an id that we do not know ({asked.case})"
        for it in self.ledger["debits"]:
            if it["phone"] not in known and not self._is_listed(it):
                yield f"S1 charged, and there is no payment ({it['phone'][-8:]})"

    def _is_listed(self, debit: dict[str, Any]) -> bool:
        """Whether the database has forgotten the payment, and an operator is told of it."""
        asked = [it for it in self.asked if it.phone == debit["phone"] and self.losses.touch(it)]
        told = [str(body["transaction_id"]) for it in asked for _, body in it.answers]
        return bool(asked) and (
            self.losses.names_debit(debit) or any(map(self.losses.name_payment, told))
        )

    def _debits(self) -> Iterator[str]:
        debits = {it["phone"]: it for it in self.ledger["debits"]}
        heard = {it["phone"] for it in self.ledger["callbacks"] if it["status"] == 200}
        for row in self.transactions:
            problem = self._judge(row, debits.get(row["phone"]), told=row["phone"] in heard)
            if problem:
                yield f"S3 {problem} ({row['internal_transaction_id']})"

    def _judge(self, row: dict[str, Any], debit: dict[str, Any] | None, *, told: bool) -> str:
        status = row["status"]
        if status == "COMPLETED":
            if debit is None:
                return "COMPLETED, and nobody was charged"
            return "" if int(row["amount"]) == debit["amount"] else "COMPLETED with another amount"
        if status == "FAILED":
            if debit is None or row["id"] in self.conflicts:
                return ""
            contradictory = row["phone"].endswith(CONTRADICTORY) and not told
            return "" if contradictory else "charged, and the payment is FAILED"
        flagged = row["in_doubt"] and row["attention"]
        if told and not flagged:
            return "a callback was answered 200, and the payment is still open"
        if debit is not None and row["checkout_request_id"] is not None and not flagged:
            return "charged, Safaricom can be asked, and the payment is still open"
        return ""

    def _told(self) -> Iterator[str]:
        """S5, where an endpoint may say 410, or fail for the whole schedule."""
        explained = {"DELIVERED": self._was_taken, "GONE": self._is_gone, "EXHAUSTED": self._failed}
        for problem in super()._told():
            if not problem.startswith("S5 a delivery is") and "saw nothing" not in problem:
                yield problem
        for row in self.deliveries:
            if row["state"] not in explained or not explained[row["state"]](row):
                yield f"S5 a delivery is {row['state']}, and nothing explains it ({row['id']})"

    def _was_taken(self, row: dict[str, Any]) -> bool:
        return 200 in self.answers.get(row["webhook_id"], [])

    def _is_gone(self, row: dict[str, Any]) -> bool:
        return 410 in self.answers.get(row["webhook_id"], [])

    def _failed(self, row: dict[str, Any]) -> bool:
        return bool(row["attempts_made"] >= TRIES)

    def _copies(self) -> Iterator[str]:
        """S6: each repeat follows a try that failed or was lost, and a fault explains that one."""
        untouched = replace(self, webhooks=self._untouched())
        yield from (it for it in super(ChaosEvidence, untouched)._copies() if "copies" not in it)
        tries = collections.defaultdict(list)
        for row in self.attempts:
            tries[row["webhook_id"]].append(row)
        troubled = {it.webhook_id for it in self.webhooks if it.path.startswith(TROUBLED_PATH)}
        for webhook, rows in tries.items():
            rows.sort(key=lambda row: int(row["attempt_number"]))
            if any(row["outcome"] in ("started", "delivered") for row in rows[:-1]):
                yield f"S6 tried again after it was delivered, or during a try ({webhook})"
            if rows[-1]["outcome"] == "started":
                yield f"S6 a try was left without a result ({webhook})"
            if webhook in troubled:
                continue
            for row in rows:
                if row["outcome"] != "delivered" and not self._was_harmed(row):
                    yield f"S6 a try is {row['outcome']}, and there was no fault ({webhook})"

    def _attempts(self) -> Iterator[str]:
        """S8, but for attempts that may have been lost."""
        yield from super(ChaosEvidence, replace(self, webhooks=self._untouched()))._attempts()

    def _untouched(self) -> list[Received]:
        touched = self.losses.touched_webhooks(self.webhooks)
        return [it for it in self.webhooks if it.webhook_id not in touched]

    def _was_harmed(self, row: dict[str, Any]) -> bool:
        """Whether a fault was there, or its wake, while the try was made."""
        began = row["attempted_at"].timestamp()
        lasted = timedelta(milliseconds=row["response_time_ms"] or LEASE_S * 1000).total_seconds()
        return any(
            it.began_at - SLACK_S <= began + lasted and began <= it.healed_at + SLACK_S
            for it in self.done
            if it.fault.kind.startswith(HARMING)
        )


def gather_chaos(stack: ChaosStack, done: list[Done]) -> ChaosEvidence:
    """Read what the witnesses and the database know."""
    found = gather(stack, stack.asked, faults=len(done), webhooks=1)
    conflicts = stack.rows("SELECT transaction_id FROM conflicts")
    losses = gather_losses(stack, time.monotonic() - time.time())
    return ChaosEvidence(
        **vars(found),
        conflicts=frozenset(row["transaction_id"] for row in conflicts),
        answers=dict(stack.receiver.answers),
        done=done,
        losses=losses,
    )


def check_run(stack: ChaosStack) -> list[str]:
    """What only the whole run can show."""
    followed = any(it.path == AWAY_PATH for it in stack.receiver.requests)
    return [*check_whole(stack), *(["S9 a redirect was followed"] if followed else [])]

"""What a chaos run's database has forgotten, and who says so: orphans and the recovery report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.chaos_stack import ChaosStack
from harness.crash import Asked, Row
from harness.receiver import Received

# A payment this much older than a loss may still have had its callback or webhook in it.
OLDER_S = 120.0


@dataclass(frozen=True)
class Losses:
    """`windows`: from when to when rows were lost and written again, of time.monotonic()."""

    windows: tuple[tuple[float, float], ...] = ()
    orphans: tuple[Row, ...] = ()
    lost: tuple[Row, ...] = ()
    holds: tuple[Row, ...] = ()
    late_holds: int = 0

    def touch(self, asked: Asked) -> bool:
        """Whether rows of this payment may have been lost."""
        return any(it[0] - OLDER_S <= asked.asked_at <= it[1] for it in self.windows)

    def touched_webhooks(self, webhooks: Iterable[Received]) -> set[str]:
        """Ids of webhooks whose attempts may have been lost."""
        return {
            it.webhook_id
            for it in webhooks
            if any(since <= it.at <= until for since, until in self.windows)
        }

    def name_payment(self, payment: str) -> bool:
        """Whether an operator is told of this payment, which is not in the database."""
        return any(str(it["payment"]) == payment for it in self.lost) or any(
            str(it["orphan_of"]) == payment for it in self.orphans
        )

    def name_callback(self, body: bytes) -> bool:
        """Whether this callback is an orphan, or a line of the recovery report."""
        return body in {bytes(it["body"]) for it in self.orphans} or (
            hashlib.sha256(body).hexdigest() in {it["about"] for it in self.lost}
        )

    def names_debit(self, debit: Row) -> bool:
        """Whether an orphan is about this debit."""
        checkout = str(debit["checkout_request_id"]).encode()
        return any(checkout in bytes(it["body"]) for it in self.orphans)

    def figures(self) -> dict[str, Any]:
        """For the report."""
        found: dict[str, Any] = {"losses": len(self.windows)}
        for kind in ("payment", "outcome", "callback"):
            rows = [it for it in self.lost if it["kind"] == kind]
            again = sum(it["written_again"] for it in rows)
            found[f"{kind}s written again"] = again
            found[f"{kind}s listed and not written again"] = len(rows) - again
        found["orphans"] = len(self.orphans)
        found["holds accepted"] = sum(it["accepted_at"] is not None for it in self.holds)
        found["holds that a process opened later than the others"] = self.late_holds
        return found


def gather_losses(stack: ChaosStack, monotonic_s: float) -> Losses:
    """`monotonic_s` is time.monotonic() when time.time() was 0."""
    return Losses(
        windows=tuple((since + monotonic_s, until + monotonic_s) for since, until in stack.losses),
        orphans=tuple(stack.rows("SELECT * FROM callbacks WHERE orphan_of IS NOT NULL")),
        lost=tuple(stack.rows("SELECT * FROM lost_rows")),
        holds=tuple(stack.rows("SELECT * FROM recovery_holds")),
        late_holds=stack.late_holds,
    )

"""Finds the ledger of each merchant, and hands one over on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from mpesa_gateway.domain.ownership import ledger_of
from mpesa_gateway.errors import NotFoundError, UnavailableError
from mpesa_gateway.store import owners
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)


class Ledgers:
    """Knows which object of a name was the first. What was learnt once is not asked again."""

    def __init__(self, pool: Pool, clock: Callable[[], datetime]) -> None:
        self._pool = pool
        self._clock = clock
        self._first: dict[str, str] = {}

    def __call__(self, uids: Mapping[str, str]) -> dict[str, str]:
        """Return the ledger for each name and uid; a name is missing while that is unknown."""
        unknown = {name: uid for name, uid in uids.items() if self._first.get(name) != uid}
        if unknown:
            try:
                with self._pool.transaction("owners.claim") as conn:
                    self._first |= owners.claim_names(conn, unknown, self._clock())
            except UnavailableError as error:
                LOGGER.warning("the owners of merchants' names are not known", problem=str(error))
        return {
            name: ledger_of(name, uid, self._first[name])
            for name, uid in uids.items()
            if name in self._first
        }


@dataclass(frozen=True)
class Adopted:
    """What came of an adoption. `left` are payments whose key the history has already."""

    moved: int
    left: int


def adopt_history(
    pool: Pool, name: str, uid: str, *, by: str, reason: str, now: datetime
) -> Adopted:
    """Give the history of a name to its present object. Safe to repeat.

    The object's own payments join it. Raises NotFoundError when the name has no history.
    """
    own = ledger_of(name, uid, first_uid="another")
    with pool.transaction("owners.adopt") as conn:
        first = owners.lock_owner(conn, name)
        if first is None:
            raise NotFoundError(f"nobody had the name {name!r} before")
        if first != uid:
            adoption = owners.Adoption(name=name, from_uid=first, to_uid=uid, by=by, reason=reason)
            owners.hand_over(conn, adoption, now)
        moved = owners.move_payments(conn, ledger=own, to_ledger=name)
        return Adopted(moved=moved, left=owners.count_payments(conn, own))

"""One batch of callbacks: who may be kept is kept, in one statement, and everybody is answered.

Rules, each with a test: equal keys are merged first, and sorted by the statement; a failed batch is
retried one by one; who is refused is answered like who is kept, after the statement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from mpesa_gateway import metrics, tracing
from mpesa_gateway.api.arrivals import Arrival, Result, answer
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.merchant import Address, Network, is_allowed
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.log import get_logger
from mpesa_gateway.merchants import Snapshot
from mpesa_gateway.store import inbox
from mpesa_gateway.store.inbox import NOBODY, Denial, NewCallback, Verdict
from mpesa_gateway.store.pool import Connection

LOGGER = get_logger(__name__)

# Safaricom has a dozen addresses; a platform that lets everybody in may hear from many.
MAX_ADDRESSES = 4096


class Denials:
    """Who may not be called back from an address, by the platform's list and the merchants'."""

    def __init__(
        self, merchants: Callable[[], Snapshot], platform: tuple[Network, ...] = ()
    ) -> None:
        self._merchants = merchants
        self._platform = platform
        self._snapshot: Snapshot | None = None
        self._known: dict[Address, Denial] = {}

    def of(self, address: Address) -> Denial:
        """By the merchants of this moment."""
        snapshot = self._merchants()
        if snapshot is not self._snapshot or len(self._known) >= MAX_ADDRESSES:
            self._snapshot, self._known = snapshot, {}
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = self._look(address, snapshot)
        return known

    def _look(self, address: Address, snapshot: Snapshot) -> Denial:
        if not is_allowed(address, self._platform):
            return Denial(everybody=True)
        names = [
            name
            for name, merchant in snapshot.by_name.items()
            if not is_allowed(address, merchant.allowed_networks)
        ]
        return Denial(merchants=json.dumps(sorted(names))) if names else NOBODY


class Keeper:
    """Keeps batches of arrivals, and answers them."""

    def __init__(self, denials: Denials, ring: Callable[[list[Work]], None]) -> None:
        self._denials = denials
        self._ring = ring

    def keep(self, conn: Connection, batch: list[Arrival]) -> None:
        """One statement for all; if it fails, one for each, so that a bad row harms only itself.

        Raises what a broken connection raises, with nobody answered who was not kept.
        """
        if tracing.is_on():
            _trace(conn, batch)
        try:
            self._keep(conn, batch)
        except Exception as error:
            if conn.closed or conn.broken or len(batch) == 1:
                raise
            LOGGER.warning("batch failed, keeping one by one", problem=type(error).__name__)
            for arrival in batch:
                self._keep_one(conn, arrival)

    def _keep_one(self, conn: Connection, arrival: Arrival) -> None:
        try:
            self._keep(conn, [arrival])
        except Exception as error:
            if conn.closed or conn.broken:
                raise
            LOGGER.exception("callback could not be kept")
            answer([(arrival, error)])

    def _keep(self, conn: Connection, batch: Sequence[Arrival]) -> None:
        groups = merge([(arrival, self._denied(arrival)) for arrival in batch])
        taken = inbox.keep(conn, [_row(group, denied) for group, denied in groups])
        results: list[Result] = []
        for (group, _), verdict in zip(groups, taken.verdicts, strict=True):
            if verdict is not Verdict.KEPT:
                _forget_spans(group)
            results += [(arrival, verdict) for arrival in group]
        # To ring never blocks, so it may come first: who has our 200 finds a worker woken.
        self._ring([Work(WorkKind.CALLBACK, callback_id) for callback_id in taken.new])
        answer(results)
        kept = sum(verdict is Verdict.KEPT for _, verdict in results)
        if kept:
            metrics.callbacks_total.labels("received").inc(kept)

    def _denied(self, arrival: Arrival) -> Denial:
        # The platform's list was checked already on the plain path; which merchant it is, the
        # worker finds out.
        return NOBODY if arrival.token is None else self._denials.of(arrival.address)


def merge(batch: Sequence[tuple[Arrival, Denial]]) -> list[tuple[list[Arrival], Denial]]:
    """Those that would be the same row, together.

    Those of the plain path never would: each is kept as it came. Nor are equal bodies from two
    addresses, if one of them may be refused for it.
    """
    groups: dict[object, tuple[list[Arrival], Denial]] = {}
    for arrival, denied in batch:
        token = arrival.token
        key = id(arrival) if token is None else (token.text, arrival.sha256, denied)
        groups.setdefault(key, ([], denied))[0].append(arrival)
    return list(groups.values())


def _row(group: list[Arrival], denied: Denial) -> NewCallback:
    """As the store keeps them; what differs between equals is the first one's."""
    first = group[0]
    return NewCallback(
        token=first.token,
        body=first.body,
        body_sha256=first.sha256,
        headers=first.headers,
        source=str(first.address),
        received_at=first.received_at,
        denied=denied,
        copies=len(group),
        traceparent=first.span.traceparent,
    )


def _trace(conn: Connection, batch: Sequence[Arrival]) -> None:
    """Begin spans, only now: the payments' traces were not known when the callbacks came."""
    tokens = [it.token for it in batch if it.token is not None]
    owners = inbox.find_token_owners(conn, [it.transaction for it in tokens]) if tokens else {}
    for arrival in batch:
        if arrival.started_at_ns is None:
            continue
        owner = owners.get(arrival.token.transaction) if arrival.token is not None else None
        if arrival.token is None or _is_of(arrival.token, owner):
            arrival.span = tracing.span(
                "callback",
                parent=owner.traceparent if owner is not None else None,
                kind="server",
                started_at_ns=arrival.started_at_ns,
                transaction_id=owner.id if owner is not None else None,
            )


def _is_of(token: CallbackToken, owner: inbox.TokenOwner | None) -> bool:
    return owner is not None and token.matches(owner.callback_secret_sha256)


def _forget_spans(refused: Sequence[Arrival]) -> None:
    """A trace tells of what was kept; a span that does not end is told to nobody."""
    for arrival in refused:
        arrival.span = tracing.NO_SPAN

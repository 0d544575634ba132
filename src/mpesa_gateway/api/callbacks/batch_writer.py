"""One batch of callbacks: who may be kept is kept, in one statement, and everybody is answered.

Rules, each with a test: equal keys are merged first, and sorted by the statement; a failed batch is
retried one by one; who is refused is answered like who is kept, after the statement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from mpesa_gateway.api.callbacks.pending import PendingCallback, Result, answer
from mpesa_gateway.api.refusals import Refusals
from mpesa_gateway.domain.ids import CallbackToken, TokenKeys
from mpesa_gateway.domain.merchant import Address, Network, is_allowed
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store import inbox
from mpesa_gateway.store.inbox import NOBODY, Denial, NewCallback, Verdict
from mpesa_gateway.store.pool import Connection, is_outage
from mpesa_gateway.telemetry import metrics, tracing
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

# Safaricom has a dozen addresses; a platform that lets everybody in may hear from many.
MAX_ADDRESSES = 4096
NO_KEYS = TokenKeys()
NOT_ALLOWED = Verdict.NOT_ALLOWED


class AllowlistCache:
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


class BatchWriter:
    """Keeps batches of arrivals, and answers them."""

    def __init__(
        self,
        denials: AllowlistCache,
        notify: Callable[[list[Work]], None],
        token_keys: TokenKeys = NO_KEYS,
        remember: Callable[[Sequence[NewCallback]], None] = lambda _: None,
    ) -> None:
        self._denials = denials
        self._notify = notify
        self._token_keys = token_keys
        self._refusals = Refusals()
        self._remember = remember

    def keep(self, conn: Connection, batch: list[PendingCallback]) -> None:
        """One statement for all; if it fails, one for each, so that a bad row harms only itself.

        Raises what a broken connection raises, with nobody answered who was not kept.
        """
        if tracing.is_on():
            _trace(conn, batch)
        try:
            self._keep(conn, batch)
        except Exception as error:
            if _concerns_all(conn, error) or len(batch) == 1:
                raise
            LOGGER.warning("batch failed, keeping one by one", problem=type(error).__name__)
            for arrival in batch:
                self._keep_one(conn, arrival)

    def _keep_one(self, conn: Connection, arrival: PendingCallback) -> None:
        try:
            self._keep(conn, [arrival])
        except Exception as error:
            if _concerns_all(conn, error):
                raise
            arrival.is_judged = True
            LOGGER.exception("callback could not be kept")
            answer([(arrival, error)])

    def _keep(self, conn: Connection, batch: Sequence[PendingCallback]) -> None:
        groups = merge([(arrival, self._denied(arrival)) for arrival in batch])
        rows = [self._row(group, denied) for group, denied in groups]
        taken = inbox.keep(conn, rows)
        self._remember(
            [it for it, verdict in zip(rows, taken.verdicts, strict=True) if verdict.is_stored]
        )
        results: list[Result] = []
        kept = 0
        for (group, _), verdict in zip(groups, taken.verdicts, strict=True):
            if verdict is not Verdict.KEPT:
                _forget_spans(group)
            if verdict is Verdict.ORPHAN:
                _report_orphan(group)
            for arrival in group:
                arrival.is_judged = True
            results += [(arrival, verdict) for arrival in group]
            kept += len(group) if verdict.is_stored else 0
        # Notify first (it never blocks): a worker is awake by the time Safaricom sees the 200.
        self._notify([Work(WorkKind.CALLBACK, callback_id) for callback_id in taken.new])
        answer(results)
        if kept:
            metrics.callbacks_total.labels("received").inc(kept)
        self._record_refused(conn, [it for it, verdict in results if verdict is NOT_ALLOWED])

    def _record_refused(self, conn: Connection, refused: Sequence[PendingCallback]) -> None:
        """Everybody has an answer by now, so nothing may be raised."""
        if not refused:
            return
        try:
            self._refusals.record(conn, refused)
        except Exception as error:  # noqa: BLE001 - evidence must not cost a callback
            LOGGER.warning("refused senders not recorded", problem=type(error).__name__)

    def _row(self, group: list[PendingCallback], denied: Denial) -> NewCallback:
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
            is_ours=first.token is not None and self._token_keys.is_ours(first.token),
        )

    def _denied(self, arrival: PendingCallback) -> Denial:
        # The platform's list was checked already on the plain path; which merchant it is, the
        # worker finds out.
        return NOBODY if arrival.token is None else self._denials.of(arrival.address)


def _concerns_all(conn: Connection, error: Exception) -> bool:
    """Whether no callback could be kept now, whatever is in it."""
    return conn.closed or conn.broken or is_outage(error)


def merge(
    batch: Sequence[tuple[PendingCallback, Denial]],
) -> list[tuple[list[PendingCallback], Denial]]:
    """Those that would be the same row, together.

    Those of the plain path never would: each is kept as it came. Nor are equal bodies from two
    addresses, if one of them may be refused for it.
    """
    groups: dict[object, tuple[list[PendingCallback], Denial]] = {}
    for arrival, denied in batch:
        token = arrival.token
        key = id(arrival) if token is None else (token.text, arrival.sha256, denied)
        groups.setdefault(key, ([], denied))[0].append(arrival)
    return list(groups.values())


def _trace(conn: Connection, batch: Sequence[PendingCallback]) -> None:
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


def _report_orphan(group: Sequence[PendingCallback]) -> None:
    """The database has lost a payment that Safaricom was asked for, or it is another database."""
    metrics.callbacks_total.labels(Verdict.ORPHAN.value).inc(len(group))
    token = group[0].token
    assert token is not None
    LOGGER.error(
        "callback of a payment that is not in this database", transaction_id=str(token.transaction)
    )


def _forget_spans(refused: Sequence[PendingCallback]) -> None:
    """A trace tells of what was kept; a span that does not end is told to nobody."""
    for arrival in refused:
        arrival.span = tracing.NO_SPAN

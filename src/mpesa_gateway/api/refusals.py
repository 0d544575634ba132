"""Leaves evidence of senders that are not on the allowlist: Safaricom has added addresses before.

A refused callback is never repeated, so the list has to be found wrong at the first one. Each new
address is one warning, bounded in number; one that brought a good token is also an event on the
payment. An instance belongs to one thread.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence

from mpesa_gateway.api.allowlist import is_forwarded
from mpesa_gateway.api.callbacks.pending import PendingCallback
from mpesa_gateway.domain.merchant import Address
from mpesa_gateway.store import events
from mpesa_gateway.store.events import RefusedSender
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

# Safaricom has a dozen addresses; whoever has many more is not Safaricom.
MAX_REMEMBERED = 1024
WARNINGS_PER_MINUTE = 20
MAX_SHOWN = 200
FORWARDED_FOR = "x-forwarded-for"


class Seen:
    """Remembers the latest of what was seen, up to a number."""

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, None] = OrderedDict()

    def is_new(self, thing: Hashable) -> bool:
        """Whether it was not seen before, as far as is remembered."""
        if thing in self._known:
            self._known.move_to_end(thing)
            return False
        self._known[thing] = None
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return True


class Refusals:
    """Warns of refused senders, and records those whose token was good."""

    def __init__(self) -> None:
        self._addresses = Seen()
        self._recorded = Seen()
        self._warned_s: deque[float] = deque(maxlen=WARNINGS_PER_MINUTE)

    def warn(self, address: Address, headers: Mapping[str, str], *, has_good_token: bool) -> None:
        """Name a new address in the log, with the header that it came from."""
        if not self._addresses.is_new(address):
            return
        now_s = time.monotonic()
        if len(self._warned_s) == WARNINGS_PER_MINUTE and now_s - self._warned_s[0] < 60:
            return
        self._warned_s.append(now_s)
        LOGGER.warning(
            "callback refused: its sender is not on the allowlist",
            address=str(address),
            header=_header_of(address, headers),
            forwarded_for=headers.get(FORWARDED_FOR, "")[:MAX_SHOWN],
            has_good_token=has_good_token,
        )

    def record(self, conn: Connection, arrivals: Sequence[PendingCallback]) -> None:
        """Tell the payments of good tokens who was refused. The callers have their answers."""
        senders = []
        for arrival in arrivals:
            assert arrival.token is not None
            self.warn(arrival.address, arrival.headers, has_good_token=True)
            if self._recorded.is_new((arrival.token.transaction, arrival.address)):
                header = _header_of(arrival.address, arrival.headers)
                senders.append(
                    RefusedSender(
                        arrival.token.transaction,
                        str(arrival.address),
                        header,
                        arrival.received_at,
                    )
                )
        if senders:
            events.append_refused_senders(conn, senders)


def _header_of(address: Address, headers: Mapping[str, str]) -> str:
    """Where the address was read: the header, or the connection itself."""
    return FORWARDED_FOR if is_forwarded(address, headers.get(FORWARDED_FOR, "")) else "connection"

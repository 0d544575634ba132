"""Limits what one address may bring to the plain callback path that names no push of ours.

Without a token, a callback is matched by Safaricom's id, which a payer can nearly guess: its time,
one to three digits, his own number. So each address has a few wrong ones a minute, and all
strangers together have a few more, since addresses are cheap. Beyond that nothing that they bring
to the plain path is read, true ones neither, for a while. In memory, per process: it holds whatever
Redis and Postgres do. Callbacks with a token are not counted here, and cost nothing of this.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from mpesa_gateway.api.addresses import AddressGroup, group_of
from mpesa_gateway.domain.merchant import Address, Network, is_allowed
from mpesa_gateway.errors import RateLimitedError
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

# An id has some thousand candidates for each second of the payer's click, and a prompt lives for
# 90 s: with these, a payer who knows all that can be known settles his own push one time in thirty.
UNMATCHED_PER_MINUTE = 30
# The same payer with hundreds of addresses. Each of our pushes has a token, so what comes true on
# the plain path is rare, and a query brings what was refused.
UNMATCHED_PER_MINUTE_STRANGERS = 90
# Who is on the platform's list is Safaricom, and guesses nothing. What comes unmatched from there
# is evidence of a mistake (a C2B URL that leads here) and only its room is limited.
UNMATCHED_PER_MINUTE_LISTED = 600
# Remembered at once; of more, those that came longest ago are forgotten.
MAX_ADDRESSES = 4096
# What is left, and when that was so.
_Bucket = tuple[float, float]


class Guesses:
    """A bucket of unmatched callbacks for each address that brought some."""

    def __init__(
        self, platform: tuple[Network, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._platform = platform
        self._clock = clock
        self._buckets: OrderedDict[AddressGroup, _Bucket] = OrderedDict()
        self._strangers: _Bucket | None = None

    def check(self, address: Address) -> None:
        """Raises RateLimitedError while the address has used up what it may bring unmatched."""
        if self._left(address) < 1:
            _refuse("too many callbacks from this address name no payment of ours")
        if not self._is_listed(address) and self._left_for_strangers() < 1:
            _refuse("too many callbacks name no payment of ours")

    def count(self, address: Address) -> None:
        """Note one that is unmatched. Raises RateLimitedError when it is one too many."""
        self.check(address)
        if not self._is_listed(address):
            self._count_stranger()
        left, group = self._left(address), group_of(address)
        self._buckets[group] = (left - 1, self._clock())
        self._buckets.move_to_end(group)
        if left < 2:
            LOGGER.warning("too many unmatched callbacks", address=str(group))
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)

    def _count_stranger(self) -> None:
        left = self._left_for_strangers()
        self._strangers = (left - 1, self._clock())
        if left < 2:
            LOGGER.warning("too many unmatched callbacks", address="many")

    def _is_listed(self, address: Address) -> bool:
        return bool(self._platform) and is_allowed(address, self._platform)

    def _left(self, address: Address) -> float:
        listed = self._is_listed(address)
        most = UNMATCHED_PER_MINUTE_LISTED if listed else UNMATCHED_PER_MINUTE
        return self._refilled(self._buckets.get(group_of(address)), most)

    def _left_for_strangers(self) -> float:
        return self._refilled(self._strangers, UNMATCHED_PER_MINUTE_STRANGERS)

    def _refilled(self, bucket: _Bucket | None, most: int) -> float:
        if bucket is None:
            return most
        left, at = bucket
        return min(most, left + (self._clock() - at) * most / 60)


def _refuse(message: str) -> None:
    raise RateLimitedError(message, retry_after_s=60)

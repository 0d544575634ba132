"""Limits that hold for the whole cluster: so many calls a minute, counted in Redis.

One algorithm for all (GCRA: a leaky bucket kept as one time stamp). Redis only notifies, so when it
is away each process keeps the same limit for itself: payments go on, the limit is looser.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import redis

from mpesa_gateway import failpoint
from mpesa_gateway.clients.redis_keys import BUDGET_PREFIX, budget_key
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)
KEY_PREFIX = BUDGET_PREFIX
MINUTE_S = 60.0

# KEYS[1]: the bucket. ARGV: seconds per call, calls that may come at once. Redis's own clock, so
# that the pods' clocks do not matter. Answers: seconds to wait (0: granted), share left.
_TAKE = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local step, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local size = step * burst
local stored = redis.pcall('GET', KEYS[1])
local empty_at = type(stored) == 'string' and tonumber(stored) or now
-- What no bucket of this size can hold, and what is no number at all, is absent.
if not (empty_at > now and empty_at <= now + size) then empty_at = now end
local wait = empty_at + step - now - size
if wait > 0.000001 then return {tostring(wait), '0'} end
empty_at = empty_at + step
local life_ms = math.ceil((empty_at - now) * 1000) + 1000
redis.call('SET', KEYS[1], string.format('%.6f', empty_at), 'PX', life_ms)
return {'0', tostring(1 - (empty_at - now) / size)}
"""


@dataclass(frozen=True)
class Grant:
    """Whether one call may go now; else how long to wait. `left` is the share that remains."""

    wait_s: float
    left: float

    @property
    def granted(self) -> bool:
        """Whether the call may go."""
        return self.wait_s <= 0


FREE = Grant(0.0, 1.0)


def _grant(wait: object, left: object, longest_s: float) -> Grant:
    """The script's answer. Raises redis.ResponseError when it is none that the script gives."""
    try:
        wait_s, share = float(wait), float(left)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise redis.ResponseError("no numbers") from error
    if not 0 <= wait_s <= longest_s or not 0 <= share <= 1:
        raise redis.ResponseError("impossible numbers")
    return Grant(wait_s, share)


class Budgets:
    """Asks for calls out of shared budgets."""

    def __init__(self, client: redis.Redis) -> None:
        self._take = client.register_script(_TAKE)
        self._local: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, name: str, per_minute: int, *, burst: int | None = None) -> Grant:
        """One call out of the budget. 0 a minute is no limit; `burst` may go at once."""
        if per_minute == 0:
            return FREE
        step, size = MINUTE_S / per_minute, burst or per_minute
        try:
            with failpoint.step("budget.take"):
                wait, left = self._take(keys=[budget_key(name)], args=[step, size])
            return _grant(wait, left, step * size)
        except redis.RedisError as error:
            LOGGER.warning("budget is counted in this process only", problem=type(error).__name__)
            return self._take_locally(name, step, size)

    def _take_locally(self, name: str, step: float, burst: int) -> Grant:
        now = time.monotonic()
        with self._lock:
            empty_at = max(self._local.get(name, 0.0), now)
            wait = empty_at + step - now - step * burst
            if wait > 1e-6:
                return Grant(wait, 0.0)
            self._local[name] = empty_at + step
            return Grant(0.0, 1 - (empty_at + step - now) / (step * burst))

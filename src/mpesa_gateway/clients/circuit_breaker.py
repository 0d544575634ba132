"""A circuit breaker for Redis: it is left alone for a while after it did not answer.

Redis is a notifier, and nobody waits for it. But a Redis that hangs costs each command its whole
time-out, so that every payment and query would pay seconds. Here those pay that are under way when
it begins to hang; later ones are told at once, and one at a time asks whether it is back.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import redis

REST_S = 1.0
# Longer than the one who asks may take.
ASKING_S = 5.0


class CircuitBreakerRedis(redis.Redis):
    """Raises redis.ConnectionError at once while Redis is left alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rest_lock = threading.Lock()
        # When it may be asked again; 0.0 while it answers.
        self._rests_until = 0.0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis-py's own."""
        self._begin()
        try:
            answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (redis.ConnectionError, redis.TimeoutError):
            self._rests_until = time.monotonic() + REST_S
            raise
        except redis.RedisError:
            # It answers, though not what was hoped for.
            self._rests_until = 0.0
            raise
        self._rests_until = 0.0
        return answer

    def _begin(self) -> None:
        """Raises redis.ConnectionError, except for the one who may ask whether it is back."""
        with self._rest_lock:
            if self._rests_until == 0.0:
                return
            now = time.monotonic()
            if now < self._rests_until:
                raise redis.ConnectionError("Redis did not answer a moment ago")
            self._rests_until = now + ASKING_S

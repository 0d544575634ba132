"""The newest payment that a process saw committed, told to processes that start later.

It is kept in Redis, beside the database, so that a process that starts on a restored database
learns that something is missing. It is a hint from an untrusted place: it carries a MAC, and all
that it can do is stop new payments until an operator looks.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from urllib.parse import urlsplit

import redis

from mpesa_gateway.domain.ids import TokenKeys
from mpesa_gateway.failpoint import step
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

KEY_PREFIX = "mpesa:acknowledged:"
# A gateway that is stopped for longer than this starts without the hint.
LIFE_S = 30 * 24 * 3600


class HighWater:
    """One value for one database's name; without a key for the MAC there is none."""

    def __init__(self, client: redis.Redis, keys: TokenKeys, database_url: str) -> None:
        self._redis = client
        self._keys = keys.keys
        name = urlsplit(database_url).path.strip("/")
        self._key = KEY_PREFIX + hashlib.sha256(name.encode()).hexdigest()[:16]

    def read(self) -> uuid.UUID | None:
        """Return the payment; None when there is none, or none that can be believed."""
        if not self._keys:
            return None
        try:
            with step("high_water.read"):
                value = self._redis.get(self._key)
        except redis.RedisError as error:
            LOGGER.warning("no high-water mark: Redis is away", problem=type(error).__name__)
            return None
        if not isinstance(value, bytes) or len(value) != 16 + 32:
            return None
        payment, mac = value[:16], value[16:]
        if not any(hmac.compare_digest(mac, self._mac(key, payment)) for key in self._keys):
            LOGGER.warning("a high-water mark in Redis has another key's MAC; it is not used")
            return None
        return uuid.UUID(bytes=payment)

    def write(self, payment: uuid.UUID) -> None:
        """Tell it to processes that start later, if Redis is there."""
        if not self._keys:
            return
        try:
            value = payment.bytes + self._mac(self._keys[0], payment.bytes)
            with step("high_water.write"):
                self._redis.set(self._key, value, ex=LIFE_S)
        except redis.RedisError as error:
            LOGGER.debug("high-water mark not written", problem=type(error).__name__)

    def _mac(self, key: bytes, payment: bytes) -> bytes:
        return hmac.digest(key, b"high-water mark " + self._key.encode() + payment, "sha256")

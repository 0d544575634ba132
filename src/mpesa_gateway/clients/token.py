"""One OAuth token per Daraja app for the whole cluster, shared through Redis.

Each new token ends the one before it (Safaricom's FAQ), so two processes that fetch their own make
each other fail. One process fetches, under a lock in Redis; the others wait for what it stores.
When Redis is away, each process falls back to a token of its own; when Redis has forgotten, the
process that still knows the token shares it again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import redis

from mpesa_gateway import metrics
from mpesa_gateway.clients.daraja import TOKEN_TIMEOUT_S, Daraja
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.failpoint import step
from mpesa_gateway.log import get_logger

LOGGER = get_logger(__name__)
KEY_PREFIX = "mpesa:token:"
# Renewed this long before it ends.
EARLY_S = 60.0
# Longer than a fetch may take, so that the lock outlives its holder's work.
LOCK_MS = int(TOKEN_TIMEOUT_S * 1000) + 1000
WAIT_S = TOKEN_TIMEOUT_S + 2.0
POLL_S = 0.05
# Wrong credentials are not tried again by every waiting request.
REFUSED_MS = 2000

# Deletes the key only while it holds what we saw.
_DELETE_IF = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class TokenRefusedError(Exception):
    """OAuth refused the credentials."""


class TokenUnavailableError(Exception):
    """OAuth cannot be reached now; nothing was sent."""


@dataclass(frozen=True)
class _Stored:
    """What Redis holds for an app. `expires_at` is wall-clock time in seconds."""

    token: str
    expires_at: float
    refused: str = ""

    def dumps(self) -> str:
        return json.dumps([self.token, self.expires_at, self.refused])

    @classmethod
    def loads(cls, raw: str) -> _Stored | None:
        """None when somebody else wrote something else there."""
        try:
            token, expires_at, refused = json.loads(raw)
            return cls(str(token), float(expires_at), str(refused))
        except (ValueError, TypeError):
            return None


class TokenCache:
    """Gets the app's token. `time_s` is the wall clock in seconds."""

    def __init__(
        self, client: redis.Redis, daraja: Daraja, *, time_s: Callable[[], float] = time.time
    ) -> None:
        self._redis = client
        self._daraja = daraja
        self._time_s = time_s
        self._delete_if = client.register_script(_DELETE_IF)
        # What this process knew last, for when Redis is away or has forgotten.
        self._local: dict[str, _Stored] = {}
        # The last token that Safaricom refused to this process: nobody can make it good again.
        self._rejected: dict[str, str] = {}
        self._flights: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def get(self, merchant: Merchant) -> str:
        """The app's token. Raises TokenRefusedError, TokenUnavailableError."""
        key = KEY_PREFIX + app_id(merchant)
        try:
            stored = self._get_shared(key, merchant)
        except redis.RedisError as error:
            LOGGER.warning("token is kept in this process only", problem=type(error).__name__)
            stored = self._get_local(key, merchant)
        if stored.refused:
            raise TokenRefusedError(stored.refused)
        self._local[key] = stored
        return stored.token

    def reject(self, merchant: Merchant, token: str) -> None:
        """Safaricom refused this token: forget it, unless a newer one is there already."""
        metrics.daraja_token_rejected_total.inc()
        key = KEY_PREFIX + app_id(merchant)
        self._rejected[key] = token
        try:
            with step("token.reject"):
                raw = self._redis.get(key)
                stored = _Stored.loads(_text(raw)) if raw else None
                if raw and stored is not None and stored.token == token:
                    self._delete_if(keys=[key], args=[raw])
        except redis.RedisError as error:
            LOGGER.warning("rejected token stays in Redis", problem=type(error).__name__)

    def _get_shared(self, key: str, merchant: Merchant) -> _Stored:
        stored = self._read(key)
        if stored is None:
            # One thread of this process asks for all of them.
            with self._flights[key]:
                stored = self._read(key) or self._obtain(key, merchant)
        return stored

    def _obtain(self, key: str, merchant: Merchant) -> _Stored:
        """Under the cluster's lock, or what another process stored meanwhile."""
        give_up = time.monotonic() + WAIT_S
        while True:
            owner = secrets.token_hex(8)
            with step("token.lock"):
                locked = self._redis.set(f"{key}:lock", owner, nx=True, px=LOCK_MS)
            if locked:
                try:
                    # The one before us may have stored a token between our look and our lock.
                    return self._read(key) or self._remind(key) or self._renew(key, merchant)
                finally:
                    with step("token.unlock"):
                        self._delete_if(keys=[f"{key}:lock"], args=[owner])
            if time.monotonic() >= give_up:
                raise TokenUnavailableError("another process did not get a token in time")
            time.sleep(POLL_S)
            stored = self._read(key)
            if stored is not None:
                return stored

    def _read(self, key: str) -> _Stored | None:
        with step("token.read"):
            raw = self._redis.get(key)
        stored = _Stored.loads(_text(raw)) if raw else None
        return stored if stored is not None and self._is_good(key, stored) else None

    def _is_good(self, key: str, stored: _Stored) -> bool:
        if stored.refused:
            return True
        return stored.expires_at > self._time_s() and stored.token != self._rejected.get(key)

    def _remind(self, key: str) -> _Stored | None:
        """Redis has forgotten what this process still knows; a new token would end this one."""
        stored = self._local.get(key)
        if stored is None or not self._is_good(key, stored):
            return None
        self._share(key, stored, int((stored.expires_at - self._time_s()) * 1000))
        return stored

    def _renew(self, key: str, merchant: Merchant) -> _Stored:
        stored, life_ms = self._fetch(merchant)
        self._share(key, stored, life_ms)
        return stored

    def _share(self, key: str, stored: _Stored, life_ms: int) -> None:
        try:
            with step("token.share"):
                self._redis.set(key, stored.dumps(), px=max(life_ms, 1))
        except redis.RedisError as error:
            # The token is good although nobody else can know it; do not fetch another.
            LOGGER.warning("token could not be shared", problem=type(error).__name__)

    def _fetch(self, merchant: Merchant) -> tuple[_Stored, int]:
        credentials = merchant.credentials
        answer = self._daraja.fetch_token(
            merchant.base_url, credentials.consumer_key, credentials.consumer_secret
        )
        if answer.token is not None:
            life_s = max(answer.expires_in_s - EARLY_S, 1.0)
            stored = _Stored(answer.token, self._time_s() + life_s)
            return stored, int(life_s * 1000)
        if answer.refused:
            return _Stored("", 0.0, answer.message or "refused"), REFUSED_MS
        raise TokenUnavailableError(answer.message)

    def _get_local(self, key: str, merchant: Merchant) -> _Stored:
        with self._flights[key]:
            stored = self._local.get(key)
            if stored is None or not self._is_good(key, stored):
                stored, _ = self._fetch(merchant)
                if not stored.refused:
                    self._local[key] = stored
            return stored


def app_id(merchant: Merchant) -> str:
    """Names a Daraja app without showing its key."""
    app = f"{merchant.base_url} {merchant.credentials.consumer_key}"
    return hashlib.sha256(app.encode()).hexdigest()[:24]


def _text(raw: object) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)

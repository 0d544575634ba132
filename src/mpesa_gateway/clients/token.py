"""One OAuth token per Daraja app for the whole cluster, shared through Redis.

Each new token ends the one before it (Safaricom's FAQ), so two processes that fetch their own make
each other fail. One process fetches, under a lock in Redis; the others wait for what it stores.
When Redis is away, each process falls back to a token of its own; when Redis has forgotten, the
process that still knows the token shares it again. Redis is not trusted: what is not sealed by the
app's own secret, or makes no sense, is absent, and a lock that is none of ours is taken away.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import redis

from mpesa_gateway.clients.daraja import TOKEN_TIMEOUT_S, Daraja
from mpesa_gateway.clients.redis_keys import TOKEN_PREFIX, lock_key, token_key, worked_key
from mpesa_gateway.clients.sealed import MAX_VALUE_BYTES, app_id, seal, unseal
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.oauth import LONGEST_TOKEN_LIFE_S, is_token
from mpesa_gateway.failpoint import step
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger

__all__ = [
    "KEY_PREFIX",
    "TokenCache",
    "TokenRefusedError",
    "TokenUnavailableError",
    "app_id",
]

LOGGER = get_logger(__name__)
KEY_PREFIX = TOKEN_PREFIX
# Renewed this long before it ends.
EARLY_S = 60.0
# Longer than a fetch may take, so that the lock outlives its holder's work.
LOCK_MS = int(TOKEN_TIMEOUT_S * 1000) + 1000
WAIT_S = TOKEN_TIMEOUT_S + 2.0
POLL_S = 0.05
# Wrong credentials are not tried again by every waiting request.
REFUSAL_LIFE_S = 1.0
# By so much the clocks of two processes may differ.
CLOCK_SKEW_S = 5.0
# Refused now, but accepted so lately: that is Safaricom's trouble, not the business's settings.
WORKED_LATELY_S = 3600.0
# Not each push is worth a write to Redis.
WORKED_AGAIN_S = 60.0
# Tokens that Safaricom refused to this process; an old one may come back through Redis.
REJECTED_KEPT = 32

# Deletes the key only while it holds what we saw.
_DELETE_IF = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
# Deletes a lock that does not end when ours do.
_DELETE_STRANGE = """
local left = redis.call('PTTL', KEYS[1])
if left == -1 or left > tonumber(ARGV[1]) then return redis.call('DEL', KEYS[1]) end
return 0
"""


class TokenRefusedError(Exception):
    """OAuth refused the credentials."""


class TokenUnavailableError(Exception):
    """OAuth cannot be reached now; nothing was sent."""


class LockHeldError(TokenUnavailableError):
    """Somebody holds the lock, and stores no token."""


@dataclass(frozen=True)
class _Stored:
    """A token, or a refusal, until `expires_at` (wall-clock time in seconds)."""

    token: str
    expires_at: float
    refused: str = ""

    def dumps(self) -> str:
        return json.dumps([self.token, self.expires_at, self.refused])

    @classmethod
    def loads(cls, text: str, now_s: float) -> _Stored | None:
        """None when it is none, has ended, or would last longer than any of ours."""
        try:
            token, expires_at, refused = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            return None
        longest = REFUSAL_LIFE_S + CLOCK_SKEW_S if refused else LONGEST_TOKEN_LIFE_S
        is_number = isinstance(expires_at, int | float) and not isinstance(expires_at, bool)
        if not is_number or not now_s < expires_at <= now_s + longest:
            return None
        if not isinstance(refused, str) or not (refused or is_token(token)):
            return None
        return cls(str(token), float(expires_at), refused)


@dataclass
class _Memory:
    """What this process knows of an app, for when Redis is away, has forgotten, or lies."""

    stored: _Stored | None = None
    worked_at: float = 0.0


@dataclass(frozen=True)
class _App:
    """A merchant's app, its keys, and what else is the same for one call."""

    merchant: Merchant
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", app_id(self.merchant))

    @property
    def key(self) -> str:
        return token_key(self.id)

    def seal(self, key: str, value: str) -> str:
        return seal(self.merchant, key, value)

    def unseal(self, key: str, raw: bytes) -> str | None:
        return unseal(self.merchant, key, raw)


class TokenCache:
    """Gets the app's token. `time_s` is the wall clock in seconds."""

    def __init__(
        self, client: redis.Redis, daraja: Daraja, *, time_s: Callable[[], float] = time.time
    ) -> None:
        self._redis = client
        self._daraja = daraja
        self._time_s = time_s
        self._delete_if = client.register_script(_DELETE_IF)
        self._delete_strange = client.register_script(_DELETE_STRANGE)
        self._local: defaultdict[str, _Memory] = defaultdict(_Memory)
        # Nobody can make a token good again that Safaricom refused to this process.
        self._rejected: defaultdict[str, deque[str]] = defaultdict(
            lambda: deque(maxlen=REJECTED_KEPT)
        )
        self._flights: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def get(self, merchant: Merchant) -> str:
        """The app's token. Raises TokenRefusedError, TokenUnavailableError."""
        app = _App(merchant)
        try:
            stored = self._get_shared(app)
        except redis.RedisError as error:
            LOGGER.warning("token is kept in this process only", problem=type(error).__name__)
            stored = self._get_local(app)
        return self._use(app, stored)

    def get_for_push(self, merchant: Merchant) -> str:
        """As `get`, but patient: a payment is worth a second look.

        Good credentials were answered with 400 and no body now and then (public issues). And a lock
        that is held although no token comes is gone around.
        """
        try:
            return self.get(merchant)
        except TokenRefusedError:
            time.sleep(REFUSAL_LIFE_S + POLL_S)
            return self.get(merchant)
        except LockHeldError:
            app = _App(merchant)
            stored = self._get_local(app)
            self._share(app, stored)
            return self._use(app, stored)

    def _use(self, app: _App, stored: _Stored) -> str:
        if stored.refused:
            raise TokenRefusedError(stored.refused)
        self._local[app.id].stored = stored
        return stored.token

    def reject(self, merchant: Merchant, token: str) -> None:
        """Safaricom refused this token: forget it, unless a newer one is there already."""
        metrics.daraja_token_rejected_total.inc()
        app = _App(merchant)
        self._rejected[app.id].append(token)
        try:
            raw, stored = self._read(app)
            if stored is not None and stored.token == token:
                with step("token.reject"):
                    self._delete_if(keys=[app.key], args=[raw])
        except redis.RedisError as error:
            LOGGER.warning("rejected token stays in Redis", problem=type(error).__name__)

    def note_worked(self, merchant: Merchant) -> None:
        """Safaricom accepted a token of this app just now."""
        app, now_s = _App(merchant), self._time_s()
        memory = self._local[app.id]
        if 0 <= now_s - memory.worked_at < WORKED_AGAIN_S:
            return
        memory.worked_at = now_s
        key = worked_key(app.id)
        try:
            with step("token.worked"):
                sealed = app.seal(key, json.dumps(now_s))
                self._redis.set(key, sealed, px=int(WORKED_LATELY_S * 1000))
        except redis.RedisError as error:
            LOGGER.warning("only this process knows a good app", problem=type(error).__name__)

    def has_worked_lately(self, merchant: Merchant) -> bool:
        """Whether Safaricom accepted a token of this app within the last hour."""
        app, now_s = _App(merchant), self._time_s()
        if now_s - self._local[app.id].worked_at < WORKED_LATELY_S:
            return True
        key = worked_key(app.id)
        try:
            text = app.unseal(key, self._read_raw(key))
            worked_at = json.loads(text) if text is not None else None
        except (redis.RedisError, ValueError, RecursionError):
            return False
        return isinstance(worked_at, float) and -CLOCK_SKEW_S < now_s - worked_at < WORKED_LATELY_S

    def _get_shared(self, app: _App) -> _Stored:
        stored = self._read_good(app)
        if stored is None:
            # One thread of this process asks for all of them.
            with self._flight(app):
                stored = self._read_good(app) or self._obtain(app)
        return stored

    @contextmanager
    def _flight(self, app: _App) -> Iterator[None]:
        """One thread of this process for each app. Raises TokenUnavailableError."""
        lock = self._flights[app.id]
        if not lock.acquire(timeout=WAIT_S + TOKEN_TIMEOUT_S):
            raise TokenUnavailableError("other payments wait for the token")
        try:
            yield
        finally:
            lock.release()

    def _obtain(self, app: _App) -> _Stored:
        """Under the cluster's lock, or what another process stored meanwhile."""
        give_up = time.monotonic() + WAIT_S
        while True:
            owner = secrets.token_hex(8)
            if self._lock(app, owner):
                try:
                    # The one before us may have stored a token between our look and our lock.
                    return self._read_good(app) or self._remind(app) or self._renew(app)
                finally:
                    self._unlock(app, owner)
            if time.monotonic() >= give_up:
                raise LockHeldError("another process did not get a token in time")
            time.sleep(POLL_S)
            stored = self._read_good(app)
            if stored is not None:
                return stored

    def _lock(self, app: _App, owner: str) -> bool:
        key = lock_key(app.id)
        with step("token.lock"):
            if self._redis.set(key, owner, nx=True, px=LOCK_MS):
                return True
            self._delete_strange(keys=[key], args=[LOCK_MS])
        return False

    def _unlock(self, app: _App, owner: str) -> None:
        """What is left of the lock ends by itself."""
        with suppress(redis.RedisError), step("token.unlock"):
            self._delete_if(keys=[lock_key(app.id)], args=[owner])

    def _read_raw(self, key: str) -> bytes:
        """The value's first bytes, which are all of one of ours; empty when there is none."""
        with step("token.read"):
            try:
                raw = self._redis.getrange(key, 0, MAX_VALUE_BYTES - 1)
            except redis.ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                # No text, so none of ours.
                self._redis.delete(key)
                return b""
        return raw if isinstance(raw, bytes) else str(raw).encode()

    def _read(self, app: _App) -> tuple[bytes, _Stored | None]:
        raw = self._read_raw(app.key)
        text = app.unseal(app.key, raw)
        return raw, _Stored.loads(text, self._time_s()) if text is not None else None

    def _read_good(self, app: _App) -> _Stored | None:
        _, stored = self._read(app)
        return stored if stored is not None and self._is_good(app, stored) else None

    def _is_good(self, app: _App, stored: _Stored) -> bool:
        is_rejected = not stored.refused and stored.token in self._rejected[app.id]
        return stored.expires_at > self._time_s() and not is_rejected

    def _remind(self, app: _App) -> _Stored | None:
        """Redis has forgotten what this process still knows; a new token would end this one."""
        stored = self._local[app.id].stored
        if stored is None or not self._is_good(app, stored):
            return None
        self._share(app, stored)
        return stored

    def _renew(self, app: _App) -> _Stored:
        stored = self._fetch(app)
        self._share(app, stored)
        return stored

    def _share(self, app: _App, stored: _Stored) -> None:
        life_ms = max(int((stored.expires_at - self._time_s()) * 1000), 1)
        try:
            with step("token.share"):
                self._redis.set(app.key, app.seal(app.key, stored.dumps()), px=life_ms)
        except redis.RedisError as error:
            # The token is good although nobody else can know it; do not fetch another.
            LOGGER.warning("token could not be shared", problem=type(error).__name__)

    def _fetch(self, app: _App) -> _Stored:
        merchant, credentials = app.merchant, app.merchant.credentials
        answer = self._daraja.fetch_token(
            merchant.base_url, credentials.consumer_key, credentials.consumer_secret
        )
        now_s = self._time_s()
        if answer.token is not None:
            with suppress(ValueError):
                # OAuth itself gives it out again.
                self._rejected[app.id].remove(answer.token)
            life_s = max(answer.expires_in_s - EARLY_S, 1.0)
            return _Stored(answer.token, now_s + life_s)
        if answer.refused:
            return _Stored("", now_s + REFUSAL_LIFE_S, answer.message or "refused")
        raise TokenUnavailableError(answer.message)

    def _get_local(self, app: _App) -> _Stored:
        """A token of this process's own."""
        with self._flight(app):
            memory = self._local[app.id]
            if memory.stored is not None and self._is_good(app, memory.stored):
                return memory.stored
            stored = self._fetch(app)
            if not stored.refused:
                memory.stored = stored
            return stored

"""OAuth tokens: who holds which, and which of them still work."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from daraja_simulator import replies
from daraja_simulator.ids import new_token
from daraja_simulator.replies import RefusedError

MAX_TOKENS = 10_000


@dataclass(frozen=True)
class _Grant:
    consumer_key: str
    expires_at: float


class Tokens:
    """The tokens that work. Times are seconds of one clock that the caller chooses."""

    def __init__(self) -> None:
        self._grants: dict[str, _Grant] = {}
        self._newest: dict[str, str] = {}

    def issue(self, consumer_key: str, expires_at: float, *, invalidate: bool) -> str:
        """A new token for the app; `invalidate` kills its previous one [O]."""
        if invalidate:
            self._grants.pop(self._newest.get(consumer_key, ""), None)
        while len(self._grants) >= MAX_TOKENS:
            forgotten = self._grants.pop(oldest := next(iter(self._grants)))
            if self._newest.get(forgotten.consumer_key) == oldest:
                del self._newest[forgotten.consumer_key]
        token = new_token()
        self._grants[token] = _Grant(consumer_key, expires_at)
        self._newest[consumer_key] = token
        return token

    def get_owner(self, authorization: str | None, now: float) -> str:
        """The consumer key behind a bearer token. Raises RefusedError."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise RefusedError(replies.no_bearer())
        grant = self._grants.get(token)
        if grant is None or grant.expires_at <= now:
            raise RefusedError(replies.invalid_token())
        return grant.consumer_key

    def expire_all(self) -> int:
        """Kill every token; how many there were."""
        count = len(self._grants)
        self._grants.clear()
        self._newest.clear()
        return count


def parse_basic(authorization: str | None, known: Mapping[str, str] | None) -> str:
    """The consumer key of HTTP Basic credentials. Raises RefusedError.

    `known` maps consumer keys to secrets; None accepts any pair that is not empty.
    """
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        raise RefusedError(replies.invalid_authentication_type())
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise RefusedError(replies.invalid_authentication_type()) from error
    key, _, secret = text.partition(":")
    if not key or not secret or (known is not None and known.get(key) != secret):
        raise RefusedError(replies.wrong_credentials())
    return key

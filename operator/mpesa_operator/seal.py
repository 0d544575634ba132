"""The operator's own secret: what it has sealed, nobody else can have made.

The generated Secret and the status lie where a tenant edits them. What the operator reads back from
there counts only with a seal, whose key is in a Secret of the gateway's namespace.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

SEAL_KEY = "seal-key"
KEY_BYTES = 32
API_KEY_PREFIX = "mpg_"
# 160 random bits and a seal of 96: together as long as 32 random bytes.
_RANDOM_BYTES, _TAG_BYTES = 20, 12
_SEAL_DIGITS = 32


@dataclass(frozen=True)
class Seal:
    """Makes and checks seals. A seal of one purpose or one owner is none of another."""

    key: bytes = field(repr=False)

    def seal(self, purpose: str, *parts: str) -> str:
        """128 bits over the parts, in hexadecimal digits."""
        return self._mac(purpose, *parts).hex()[:_SEAL_DIGITS]

    def is_sealed(self, seal: object, purpose: str, *parts: str) -> bool:
        """Whether `seal` was made for exactly these parts."""
        if not isinstance(seal, str) or not seal.isascii():
            return False
        return hmac.compare_digest(seal, self.seal(purpose, *parts))

    def make_api_key(self, owner: str) -> str:
        """Make an API key that can be recognised as the owner's, also after a restore."""
        random = secrets.token_bytes(_RANDOM_BYTES)
        text = base64.urlsafe_b64encode(random + self._tag(owner, random)).decode()
        return API_KEY_PREFIX + text.rstrip("=")

    def made_api_key(self, api_key: str, owner: str) -> bool:
        """Whether this operator made the API key for that owner."""
        if not api_key.isascii() or not api_key.startswith(API_KEY_PREFIX):
            return False
        text = api_key.removeprefix(API_KEY_PREFIX)
        try:
            content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            return False
        random, tag = content[:_RANDOM_BYTES], content[_RANDOM_BYTES:]
        # One text only for one key: base64 has spare bits at its end.
        canonical = base64.urlsafe_b64encode(content).decode().rstrip("=") == text
        return canonical and hmac.compare_digest(tag, self._tag(owner, random))

    def _tag(self, owner: str, random: bytes) -> bytes:
        return self._mac("api-key", owner, random.hex())[:_TAG_BYTES]

    def _mac(self, purpose: str, *parts: str) -> bytes:
        text = "\0".join((purpose, *parts))
        return hmac.new(self.key, text.encode(), hashlib.sha256).digest()


def make_seal_key() -> bytes:
    """Make the operator's secret, as it stands in its Secret."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES))


def read_seal(value: bytes | None) -> Seal | None:
    """The seal from the operator's Secret; None when there is none that can be used."""
    try:
        key = base64.b64decode(value or b"", validate=True)
    except ValueError:
        return None
    return Seal(key) if len(key) >= KEY_BYTES else None

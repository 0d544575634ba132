"""Identifiers: UUIDv7 for transactions, and the token in each callback URL."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mpesa_gateway.errors import InvalidInputError

SECRET_BYTES = 16
# 32 hexadecimal digits name the transaction, 32 are the secret (128 bits). Hexadecimal, because
# letters beyond f could spell a word that Safaricom refuses in a callback URL. In either case, and
# with a slash behind it: a proxy in between may have rewritten it.
_TOKEN = re.compile(r"([0-9a-fA-F]{64})/?\Z", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII | re.IGNORECASE)


def uuid7(now: datetime, randomness: bytes) -> uuid.UUID:
    """A time-ordered UUID (RFC 9562, version 7) from `now` and ten random bytes.

    Ordered, because a random key costs several times the WAL on a large table
    (docs/decisions/0004).
    """
    assert len(randomness) == 10, len(randomness)
    milliseconds = int(now.timestamp() * 1000)
    value = (milliseconds << 80) | int.from_bytes(randomness, "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)


def first_id_at(at: datetime, *, later: timedelta = timedelta(0)) -> uuid.UUID:
    """The lowest id of a moment; of times before 1970 and after 9998, of those."""
    earliest, latest = datetime(1970, 1, 2, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
    return uuid7(min(max(at, earliest), latest) + later, bytes(10))


@dataclass(frozen=True)
class CallbackToken:
    """What the path of a callback URL says: a transaction, and the secret that proves it."""

    transaction: uuid.UUID
    secret: bytes

    def __repr__(self) -> str:
        """Without the secret: who holds it may settle the transaction."""
        return f"CallbackToken({self.transaction})"

    @property
    def text(self) -> str:
        """The path segment: 64 hexadecimal digits."""
        return self.transaction.hex + self.secret.hex()

    @property
    def secret_sha256(self) -> bytes:
        """What the database keeps instead of the secret."""
        return hashlib.sha256(self.secret).digest()

    def matches(self, secret_sha256: bytes) -> bool:
        """Whether the secret is the one of that transaction; constant time."""
        return hmac.compare_digest(self.secret_sha256, secret_sha256)


def find_callback_token(text: str) -> CallbackToken | None:
    """Read the last segment of a callback URL; None when it cannot be a token of ours."""
    if not _TOKEN.match(text):
        return None
    return CallbackToken(uuid.UUID(hex=text[:32]), bytes.fromhex(text[32:64]))


@dataclass(frozen=True)
class TokenKeys:
    """Makes the secrets of callback tokens, and recognises a token whose payment is not known.

    `keys` are the newest first: the first one makes, each of them recognises. Without a key the
    secrets are random, and only the payment's row can tell a good token (docs/decisions/0019).
    """

    keys: tuple[bytes, ...] = field(default=(), repr=False)

    def make(self, transaction: uuid.UUID, randomness: bytes) -> CallbackToken:
        """Return the token of a new payment. `randomness` is its secret where there is no key."""
        secret = _token_mac(self.keys[0], transaction) if self.keys else randomness
        return CallbackToken(transaction, secret)

    def is_ours(self, token: CallbackToken) -> bool:
        """Whether one of the keys made the token; constant time for each key."""
        return any(
            hmac.compare_digest(token.secret, _token_mac(key, token.transaction))
            for key in self.keys
        )


def derived_key(secrets: Sequence[str], purpose: str) -> bytes:
    """Return a key for one purpose from configured secrets, the same in every process.

    Each secret goes in with its length, so that no two lists of secrets are the same input.
    """
    joined = b"".join(b"%d:%b" % (len(it.encode()), it.encode()) for it in secrets)
    return hmac.digest(joined, f"mpesa-gateway {purpose}".encode(), "sha256")


def _token_mac(key: bytes, transaction: uuid.UUID) -> bytes:
    return hmac.digest(key, transaction.bytes, "sha256")[:SECRET_BYTES]


def parse_uuid(value: object, field: str) -> uuid.UUID:
    """A UUID in its usual form with hyphens. Raises InvalidInputError."""
    if isinstance(value, str) and _UUID.match(value):
        return uuid.UUID(value)
    raise InvalidInputError.of(field, "must be a UUID with hyphens")


def parse_uuid4(value: object, field: str) -> uuid.UUID:
    """A random UUID (version 4, RFC 9562 variant). Raises InvalidInputError."""
    try:
        parsed = parse_uuid(value, field)
    except InvalidInputError:
        parsed = None
    if parsed is None or parsed.variant != uuid.RFC_4122 or parsed.version != 4:
        raise InvalidInputError.of(field, "must be a UUID of version 4, with hyphens")
    return parsed

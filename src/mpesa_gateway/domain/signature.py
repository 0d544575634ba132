"""Signatures of webhooks: `X-Signature`, and the Standard Webhooks triple.

Standard Webhooks: github.com/standard-webhooks/standard-webhooks, `v1` is HMAC-SHA256.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime

SECRET_PREFIX = "whsec_"  # noqa: S105 - marks a base64 secret, is none

# Standard Webhooks recommends five minutes.
TOLERANCE_S = 300


class SignatureError(Exception):
    """A webhook that is not genuine, or not from the last five minutes."""


def signing_key(secret: str) -> bytes:
    """The key bytes of a secret: base64 behind `whsec_`, else the UTF-8 bytes.

    Raises ValueError when what follows `whsec_` is not base64.
    """
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError as error:
        raise ValueError("a secret that begins with whsec_ must go on in base64") from error
    if not key:
        raise ValueError("a secret that begins with whsec_ must go on in base64")
    return key


def body_signature(secret: str, body: bytes) -> str:
    """`X-Signature`: hexadecimal HMAC-SHA256 of the body."""
    return hmac.new(signing_key(secret), body, hashlib.sha256).hexdigest()


def webhook_headers(
    webhook_id: str, secrets: Sequence[str], body: bytes, now: datetime
) -> dict[str, str]:
    """The signature headers of one attempt; `secrets` are newest first, all of them sign."""
    timestamp = str(int(now.timestamp()))
    signed = b".".join([webhook_id.encode(), timestamp.encode(), body])
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_v1(signing_key(secret), signed) for secret in secrets),
        "X-Signature": body_signature(secrets[0], body),
    }


def _v1(key: bytes, signed: bytes) -> str:
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, now: datetime | None
) -> None:
    """Check what `webhook_headers` made; header names are in lower case.

    With `now` None, a webhook of any age is accepted. Raises SignatureError, and ValueError for a
    secret that cannot be used.
    """
    key = signing_key(secret)
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    if missing := [name for name in names if not headers.get(name)]:
        raise SignatureError(f"the header {', '.join(missing)} is missing")
    webhook_id, timestamp, signatures = (headers[name] for name in names)
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise SignatureError("webhook-timestamp is not a number of seconds")
    if now is not None and abs(now.timestamp() - int(timestamp)) > TOLERANCE_S:
        raise SignatureError("its timestamp is more than five minutes away from this clock")
    signed = b".".join([webhook_id.encode(), timestamp.encode(), body])
    expected = _v1(key, signed).encode()
    if not any(hmac.compare_digest(expected, it.encode()) for it in signatures.split()):
        raise SignatureError("no signature in webhook-signature fits this secret, id and body")

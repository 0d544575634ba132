"""Values in Redis that only their app's own gateway can have written.

Redis is not trusted: whoever writes to it must not be able to choose a token or a refusal. The key
of the MAC comes from the app's consumer secret, which is not in Redis.
"""

from __future__ import annotations

import hashlib
import hmac

from mpesa_gateway.domain.merchant import Merchant

MAX_VALUE_BYTES = 8 * 1024
_MAC_LENGTH = 64


def app_id(merchant: Merchant) -> str:
    """Name the pair of a Daraja app's key and secret at one address, without showing either.

    A wrong secret beside the right key is another pair, with a token, refusals and budgets of its
    own.
    """
    credentials = merchant.credentials
    app = f"{merchant.base_url}\n{credentials.consumer_key}"
    return _mac(credentials.consumer_secret.encode(), app)[:24]


def seal(merchant: Merchant, key: str, value: str) -> str:
    """The value with a MAC over it and the key that it is stored under."""
    return _mac(_sealing_key(merchant), f"{key}\n{value}") + value


def unseal(merchant: Merchant, key: str, raw: bytes) -> str | None:
    """What was sealed under that key; None for all else."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    mac, value = text[:_MAC_LENGTH], text[_MAC_LENGTH:]
    expected = _mac(_sealing_key(merchant), f"{key}\n{value}")
    return value if hmac.compare_digest(mac.encode(), expected.encode()) else None


def _sealing_key(merchant: Merchant) -> bytes:
    secret = merchant.credentials.consumer_secret.encode()
    return hmac.digest(secret, b"mpesa-gateway: values in Redis", "sha256")


def _mac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

"""Reads credentials out of Secrets, and says in a sentence what is wrong with them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from mpesa_gateway.domain.merchant import Credentials
from mpesa_operator.keys import is_signing_secret
from mpesa_operator.spec import CredentialsRef, SigningSecretRef

LONGEST_VALUE = 512

SecretData = Mapping[str, bytes]


@dataclass(frozen=True)
class Problem:
    """Why something cannot be done: a reason in one word, and a sentence."""

    reason: str
    message: str


def resolve_credentials(ref: CredentialsRef, data: SecretData | None) -> Credentials | Problem:
    """The three values of the Secret. `data` is None when there is no such Secret."""
    if data is None:
        return _not_found(ref.name)
    values: list[str] = []
    for key in (ref.keys.consumer_key, ref.keys.consumer_secret, ref.keys.passkey):
        value = _value(ref.name, key, data)
        if isinstance(value, Problem):
            return value
        values.append(value)
    return Credentials(*values)


def resolve_signing_secret(ref: SigningSecretRef, data: SecretData | None) -> str | Problem:
    """The merchant's own webhook secret."""
    if data is None:
        return _not_found(ref.name)
    value = _value(ref.name, ref.key, data)
    if isinstance(value, str) and not is_signing_secret(value):
        return Problem(
            "InvalidValue",
            f"Key {ref.key} of Secret {ref.name} begins with whsec_ but does not go on in base64.",
        )
    return value


def _not_found(name: str) -> Problem:
    return Problem("SecretNotFound", f"Secret {name} does not exist in this namespace.")


def _value(name: str, key: str, data: SecretData) -> str | Problem:
    """One value, without the space around it that `--from-file` likes to add."""
    if key not in data:
        return Problem("KeyMissing", f"Secret {name} has no key {key}.")
    try:
        value = data[key].decode().strip()
    except UnicodeDecodeError:
        return Problem("InvalidValue", f"Key {key} of Secret {name} is not text.")
    if not value:
        return Problem("EmptyValue", f"Key {key} of Secret {name} is empty.")
    if len(value) > LONGEST_VALUE or not value.isprintable():
        return Problem(
            "InvalidValue",
            f"Key {key} of Secret {name} is longer than {LONGEST_VALUE} characters or has"
            " characters that cannot be printed.",
        )
    return value


def credentials_digest(uid: str, credentials: Credentials) -> str:
    """Tells whether a consumer key and secret were checked before; keyed by the object's uid.

    The passkey is no part of it: it is not used to get a token.
    """
    text = f"{credentials.consumer_key}\0{credentials.consumer_secret}"
    return hmac.new(uid.encode(), text.encode(), hashlib.sha256).hexdigest()[:16]

"""Reads credentials out of Secrets, and says in a sentence what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mpesa_gateway.domain.merchant import Credentials
from mpesa_operator.keys import is_signing_secret, sha256_hex
from mpesa_operator.seal import Seal
from mpesa_operator.spec import ApiKey, CredentialsRef, SigningSecretRef

LONGEST_VALUE = 512
# An API key opens a merchant's money: as long as 128 random bits in hexadecimal digits, and no
# single character over and over.
SHORTEST_API_KEY, LEAST_CHARACTERS = 32, 8

SecretData = Mapping[str, bytes]


@dataclass(frozen=True)
class Problem:
    """Why something cannot be done: a reason in one word, and a sentence.

    `holder` is the merchant that has what was asked for; only the sentence is shown.
    """

    reason: str
    message: str
    holder: str | None = None


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


def resolve_api_key(api_key: ApiKey, data: SecretData | None) -> str | Problem:
    """The SHA-256 of the API key that the merchant brings."""
    ref = api_key.secret_ref
    if ref is None:
        return api_key.sha256 or Problem("InvalidValue", "spec.apiKey has neither key nor digest.")
    if data is None:
        return _not_found(ref.name)
    value = _value(ref.name, ref.key, data)
    if isinstance(value, Problem):
        return value
    if len(value) < SHORTEST_API_KEY or len(set(value)) < LEAST_CHARACTERS or " " in value:
        return Problem(
            "WeakApiKey",
            f"Key {ref.key} of Secret {ref.name} is no API key: it needs {SHORTEST_API_KEY}"
            f" characters or more, {LEAST_CHARACTERS} different ones, and no blanks.",
        )
    return sha256_hex(value)


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


def credentials_digest(seal: Seal, uid: str, credentials: Credentials) -> str:
    """Tells whether a consumer key and secret were checked before.

    It stands in the status, so it is keyed by the operator's secret: nobody can try guesses on it.
    The passkey is no part of it: it is not used to get a token.
    """
    parts = (uid, credentials.consumer_key, credentials.consumer_secret)
    return seal.seal("checked-credentials", *parts)[:16]

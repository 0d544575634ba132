"""The generated Secret: the API key, the webhook signing secret, and what they replaced.

What is replaced stays valid for the overlap. Only what was published can have been used, so the
published file, not the Secret, says what is being replaced; a Secret that was deleted or edited by
hand is treated like a rotation.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mpesa_gateway.domain.signature import SECRET_PREFIX, signing_key
from mpesa_operator.entry import Published
from mpesa_operator.spec import Rotation

API_KEY = "api-key"
WEBHOOK_SECRET = "webhook-signing-secret"  # noqa: S105 - the name of a key
PREVIOUS_API_KEYS = "previous-api-keys"
PREVIOUS_WEBHOOK_SECRETS = "previous-webhook-signing-secrets"
APPLIED_ROTATION = "applied-rotation"

# A merchant file takes eight of each; the newest is one of them.
MAX_PREVIOUS = 7


@dataclass(frozen=True)
class FreshKeys:
    """New values, made outside of the plan so that the plan stays a function of its input."""

    api_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)


def fresh_keys() -> FreshKeys:
    """A new API key and a new webhook secret, 256 bits each."""
    webhook = base64.b64encode(secrets.token_bytes(32)).decode()
    return FreshKeys("mpg_" + secrets.token_urlsafe(32), SECRET_PREFIX + webhook)


@dataclass(frozen=True)
class Previous:
    """A value that was replaced: an API key's SHA-256, or a webhook secret."""

    value: str = field(repr=False)
    valid_until: datetime


@dataclass(frozen=True)
class Keyring:
    """What the generated Secret should hold, and what the merchant's file takes from it."""

    data: Mapping[str, bytes] = field(repr=False)
    api_key_sha256: tuple[str, ...] = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    applied: Rotation
    previous_valid_until: datetime | None
    next_change: datetime | None


def plan_keys(
    data: Mapping[str, bytes] | None,
    published: Published | None,
    *,
    rotation: Rotation,
    external: str | None,
    fresh: FreshKeys,
    now: datetime,
    overlap: timedelta,
) -> Keyring:
    """The keys as they should be now.

    `data` is the generated Secret as it is, None when there is none. `external` is the webhook
    secret that the merchant brings; then none is generated.
    """
    data = data or {}
    applied = _applied(data)
    api_key = _kept(data, API_KEY, applied.api_key, rotation.api_key) or fresh.api_key
    generated = None if external else _kept_webhook_secret(data, applied, rotation)
    webhook_secret = external or generated or fresh.webhook_secret
    old_keys = _previous(
        _read_previous(data, PREVIOUS_API_KEYS),
        current=sha256_hex(api_key),
        published=published.api_key_sha256 if published else (),
        now=now,
        overlap=overlap,
    )
    old_secrets = _previous(
        _read_previous(data, PREVIOUS_WEBHOOK_SECRETS),
        current=webhook_secret,
        published=published.webhook_secrets if published else (),
        now=now,
        overlap=overlap,
    )
    applied = Rotation(
        apiKey=rotation.api_key or applied.api_key,
        webhookSecret=rotation.webhook_secret or applied.webhook_secret,
    )
    ends = [old.valid_until for old in (*old_keys, *old_secrets)]
    return Keyring(
        data=_data(api_key, None if external else webhook_secret, old_keys, old_secrets, applied),
        api_key_sha256=(sha256_hex(api_key), *(old.value for old in old_keys)),
        webhook_secrets=(webhook_secret, *(old.value for old in old_secrets)),
        applied=applied,
        previous_valid_until=max(ends, default=None),
        next_change=min(ends, default=None),
    )


def sha256_hex(text: str) -> str:
    """How pods know an API key."""
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(
    data: Mapping[str, bytes], name: str, applied: str | None, wanted: str | None
) -> str | None:
    """The value as it is; None when there is none, or a rotation asks for another.

    The text that the first key was made with asks for nothing, and a text taken back neither.
    """
    value = _text(data, name)
    return None if wanted is not None and wanted != applied else value


def _kept_webhook_secret(
    data: Mapping[str, bytes], applied: Rotation, rotation: Rotation
) -> str | None:
    value = _kept(data, WEBHOOK_SECRET, applied.webhook_secret, rotation.webhook_secret)
    return value if value and is_signing_secret(value) else None


def is_signing_secret(value: str) -> bool:
    """Whether webhooks can be signed with it."""
    try:
        signing_key(value)
    except ValueError:
        return False
    return True


def _previous(
    known: list[Previous],
    *,
    current: str,
    published: tuple[str, ...],
    now: datetime,
    overlap: timedelta,
) -> list[Previous]:
    """What is still valid beside the current value, newest first."""
    replaced = published[0] if published and published[0] != current else None
    kept = [old for old in known if old.valid_until > now and old.value != current]
    if replaced is not None and all(old.value != replaced for old in known) and overlap:
        kept.insert(0, Previous(replaced, now + overlap))
    return kept[:MAX_PREVIOUS]


def _text(data: Mapping[str, bytes], name: str) -> str | None:
    try:
        return data.get(name, b"").decode().strip() or None
    except UnicodeDecodeError:
        return None


def _applied(data: Mapping[str, bytes]) -> Rotation:
    document = _json(data, APPLIED_ROTATION)
    if not isinstance(document, dict):
        return Rotation()
    texts = {name: value for name, value in document.items() if isinstance(value, str)}
    return Rotation.model_validate(texts)


def _read_previous(data: Mapping[str, bytes], name: str) -> list[Previous]:
    document = _json(data, name)
    found: list[Previous] = []
    for item in document if isinstance(document, list) else []:
        try:
            until = datetime.fromisoformat(item["validUntil"])
            found.append(Previous(str(item["value"]), until))
        except (TypeError, KeyError, ValueError):
            continue
    return [old for old in found if old.valid_until.tzinfo is not None]


def _json(data: Mapping[str, bytes], name: str) -> Any:
    try:
        return json.loads(data.get(name, b"null"))
    except ValueError:
        return None


def _data(
    api_key: str,
    webhook_secret: str | None,
    old_keys: list[Previous],
    old_secrets: list[Previous],
    applied: Rotation,
) -> dict[str, bytes]:
    data = {API_KEY: api_key.encode()}
    if webhook_secret is not None:
        data[WEBHOOK_SECRET] = webhook_secret.encode()
    for name, previous in ((PREVIOUS_API_KEYS, old_keys), (PREVIOUS_WEBHOOK_SECRETS, old_secrets)):
        if previous:
            items = [
                {"value": old.value, "validUntil": old.valid_until.isoformat()} for old in previous
            ]
            data[name] = json.dumps(items).encode()
    texts = applied.model_dump(by_alias=True, exclude_none=True)
    if texts:
        data[APPLIED_ROTATION] = json.dumps(texts, sort_keys=True).encode()
    return data

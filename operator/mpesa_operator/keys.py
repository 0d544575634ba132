"""The generated Secret: the API key, the webhook signing secret, and what they replaced.

What is replaced stays valid for the overlap. Only what was published can have been used, so the
published file, not the Secret, says what is being replaced. The Secret lies in the tenant's hands:
an API key that the operator did not make for this merchant counts as deleted, and a deleted key is
treated like a rotation. Of what was replaced the Secret holds seals, never the value.
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
from mpesa_operator.documents import parse_json
from mpesa_operator.merchant_file import Published
from mpesa_operator.seal import Seal
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


def fresh_keys(seal: Seal, owner: str) -> FreshKeys:
    """A new API key of the owner, which is `namespace/name`, and a new webhook secret."""
    webhook = base64.b64encode(secrets.token_bytes(32)).decode()
    return FreshKeys(seal.make_api_key(owner), SECRET_PREFIX + webhook)


@dataclass(frozen=True)
class Provenance:
    """Who the keys are for, and how to tell what the operator made for them."""

    owner: str
    seal: Seal = field(repr=False)

    def made(self, api_key: str, published: Published | None) -> bool:
        """Whether the operator made the API key for this merchant, or published it for it."""
        if self.seal.made_api_key(api_key, self.owner):
            return True
        # Made by an operator that did not seal its keys yet, or whose secret was lost.
        return published is not None and sha256_hex(api_key) in published.api_key_sha256


@dataclass(frozen=True)
class Brought:
    """What the merchant brings, so that none is generated: a webhook secret, a key's SHA-256."""

    webhook_secret: str | None = field(default=None, repr=False)
    api_key_sha256: str | None = field(default=None, repr=False)


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
    provenance: Provenance,
    rotation: Rotation,
    brought: Brought,
    fresh: FreshKeys,
    now: datetime,
    overlap: timedelta,
) -> Keyring:
    """The keys as they should be now.

    `data` is the generated Secret as it is, None when there is none.
    """
    data = data or {}
    applied = _applied(data)
    api_key = None if brought.api_key_sha256 else _kept_api_key(data, applied, rotation)
    if api_key is not None and not provenance.made(api_key, published):
        api_key = None
    api_key = api_key or fresh.api_key
    api_key_sha256 = brought.api_key_sha256 or sha256_hex(api_key)
    generated = None if brought.webhook_secret else _kept_webhook_secret(data, applied, rotation)
    webhook_secret = brought.webhook_secret or generated or fresh.webhook_secret
    replaced = _Replaced(data, provenance, now, overlap)
    old_keys = replaced.still_valid(
        PREVIOUS_API_KEYS, api_key_sha256, published.api_key_sha256 if published else ()
    )
    old_secrets = replaced.still_valid(
        PREVIOUS_WEBHOOK_SECRETS, webhook_secret, published.webhook_secrets if published else ()
    )
    applied = Rotation(
        apiKey=rotation.api_key or applied.api_key,
        webhookSecret=rotation.webhook_secret or applied.webhook_secret,
    )
    ends = [old.valid_until for old in (*old_keys, *old_secrets)]
    current = {
        API_KEY: None if brought.api_key_sha256 else api_key,
        WEBHOOK_SECRET: None if brought.webhook_secret else webhook_secret,
    }
    previous = {PREVIOUS_API_KEYS: old_keys, PREVIOUS_WEBHOOK_SECRETS: old_secrets}
    return Keyring(
        data=_data(current, previous, applied, provenance),
        api_key_sha256=(api_key_sha256, *(old.value for old in old_keys)),
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


def _kept_api_key(data: Mapping[str, bytes], applied: Rotation, rotation: Rotation) -> str | None:
    return _kept(data, API_KEY, applied.api_key, rotation.api_key)


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


@dataclass(frozen=True)
class _Replaced:
    """Tells which replaced values are still valid, and until when."""

    data: Mapping[str, bytes] = field(repr=False)
    provenance: Provenance
    now: datetime
    overlap: timedelta

    def still_valid(self, name: str, current: str, published: tuple[str, ...]) -> list[Previous]:
        """Return the replaced values that are still valid, newest first; all were published."""
        replaced = published[0] if published and published[0] != current else None
        known = self._known(name, published)
        kept = [old for old in known if old.valid_until > self.now and old.value != current]
        if replaced is not None and all(old.value != replaced for old in known) and self.overlap:
            kept.insert(0, Previous(replaced, self.now + self.overlap))
        return kept[:MAX_PREVIOUS]

    def _known(self, name: str, published: tuple[str, ...]) -> list[Previous]:
        """What the Secret says of published values. Nothing else in it counts."""
        document = _json(self.data, name)
        found: list[Previous] = []
        for item in document if isinstance(document, list) else []:
            try:
                until = datetime.fromisoformat(item["validUntil"])
                aware = until.tzinfo is not None
            except (TypeError, KeyError, ValueError):
                continue
            found += [
                Previous(value, limit)
                for value in published
                if aware and (limit := self._limit(name, item, value, until)) is not None
            ]
        return found

    def _limit(
        self, name: str, item: dict[str, Any], value: str, until: datetime
    ) -> datetime | None:
        """Until when the item lets the value be valid; None when it is about another value."""
        owner, seal = self.provenance.owner, self.provenance.seal
        if seal.is_sealed(item.get("seal"), name, owner, value, item["validUntil"]):
            return until
        # Written by an operator that did not seal yet: no longer than what it could have meant.
        return min(until, self.now + self.overlap) if item.get("value") == value else None


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


def _json(data: Mapping[str, bytes], name: str) -> Any:
    try:
        return parse_json(data.get(name, b"null"))
    except ValueError:
        return None


def _data(
    current: Mapping[str, str | None],
    previous: Mapping[str, list[Previous]],
    applied: Rotation,
    provenance: Provenance,
) -> dict[str, bytes]:
    data = {name: value.encode() for name, value in current.items() if value is not None}
    for name, values in previous.items():
        items = [_sealed(name, old, provenance) for old in values]
        if items:
            data[name] = json.dumps(items).encode()
    texts = applied.model_dump(by_alias=True, exclude_none=True)
    if texts:
        data[APPLIED_ROTATION] = json.dumps(texts, sort_keys=True).encode()
    return data


def _sealed(name: str, old: Previous, provenance: Provenance) -> dict[str, str]:
    """What the Secret says of a replaced value: a referenced one must not be readable in it."""
    until = old.valid_until.isoformat()
    seal = provenance.seal.seal(name, provenance.owner, old.value, until)
    return {"seal": seal, "validUntil": until}

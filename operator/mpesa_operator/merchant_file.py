"""A merchant's file in the bundle: the same input gives the same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mpesa_gateway.domain.merchant import Credentials, Network
from mpesa_operator.documents import parse_json
from mpesa_operator.spec import MerchantSpec

VERSION = 1


@dataclass(frozen=True)
class Published:
    """What a published file says that must outlive an edit: keys that are in use."""

    credentials: Credentials = field(repr=False)
    api_key_sha256: tuple[str, ...] = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    short_code: str = ""
    uid: str | None = None
    suspended: bool = False
    draining: bool = False


def build_entry(
    key: str,
    uid: str,
    spec: MerchantSpec,
    *,
    credentials: Credentials,
    api_key_sha256: tuple[str, ...],
    webhook_secrets: tuple[str, ...],
    networks: tuple[Network, ...],
) -> bytes:
    """The file, version 1. What is absent in the spec is absent in the file."""
    document = {
        "version": VERSION,
        "name": key,
        "uid": uid,
        "environment": spec.environment,
        "shortCode": spec.short_code,
        "transactionType": spec.transaction_type,
        "tillNumber": spec.till_number,
        "credentials": {
            "consumerKey": credentials.consumer_key,
            "consumerSecret": credentials.consumer_secret,
            "passkey": credentials.passkey,
        },
        "apiKeySHA256": list(api_key_sha256),
        "callback": {"allowedCIDRs": [str(network) for network in networks]},
        "webhook": _webhook(spec, webhook_secrets),
        "limits": spec.limits.model_dump(by_alias=True, exclude_none=True),
        "suspended": spec.suspended,
        "draining": False,
    }
    return _bytes({name: value for name, value in document.items() if value is not None})


def _webhook(spec: MerchantSpec, secrets: tuple[str, ...]) -> dict[str, Any]:
    webhook: dict[str, Any] = {
        "secrets": list(secrets),
        "allowedHosts": spec.webhook.allowed_hosts or [],
    }
    if spec.webhook.url is not None:
        webhook["url"] = spec.webhook.url
    if spec.webhook.retry_schedule is not None:
        webhook["retrySchedule"] = spec.webhook.retry_schedule
    return webhook


def with_flags(
    content: bytes, *, suspended: bool | None = None, draining: bool | None = None
) -> bytes:
    """The same file with other flags; None leaves one as it is."""
    document = json.loads(content)
    for name, value in (("suspended", suspended), ("draining", draining)):
        if value is not None:
            document[name] = value
    return _bytes(document)


def security_edits(before: bytes, after: bytes) -> list[bytes]:
    """The file `before` with the keys and flags of `after`, the fullest first.

    The later ones leave out what needs room: replaced keys, then the new keys altogether.
    """
    try:
        old, new = json.loads(before), json.loads(after)
        flags = {name: new[name] for name in ("suspended", "draining")}
        keys, secrets = new["apiKeySHA256"], new["webhook"]["secrets"]
        full = {**flags, "apiKeySHA256": keys, "credentials": new["credentials"]}
        return [
            _bytes({**old, **full, "webhook": {**old["webhook"], "secrets": secrets}}),
            _bytes({**old, **flags, "apiKeySHA256": keys[:1]}),
            _bytes({**old, **flags}),
        ]
    except (ValueError, KeyError, TypeError):
        return []


def read_entry(content: bytes | None) -> Published | None:
    """What a published file says; None when there is none, or none that can be read."""
    if content is None:
        return None
    try:
        return _published(parse_json(content))
    except (ValueError, KeyError, TypeError):
        return None


def _published(document: dict[str, Any]) -> Published:
    credentials = document["credentials"]
    return Published(
        credentials=Credentials(
            credentials["consumerKey"], credentials["consumerSecret"], credentials["passkey"]
        ),
        api_key_sha256=tuple(document["apiKeySHA256"]),
        webhook_secrets=tuple(document["webhook"]["secrets"]),
        short_code=document["shortCode"],
        uid=document.get("uid"),
        suspended=bool(document.get("suspended")),
        draining=bool(document.get("draining")),
    )


def allowed_cidrs(content: bytes) -> list[str]:
    """The networks that the file narrows to."""
    cidrs: list[str] = json.loads(content).get("callback", {}).get("allowedCIDRs", [])
    return cidrs


def _bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

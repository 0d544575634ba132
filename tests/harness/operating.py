"""Values for tests of the operator's decisions: everything good unless a test says otherwise."""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.merchantconfigs import DARAJA, PAYBILL
from mpesa_gateway.domain.bundle import file_digest
from mpesa_operator.keys import FreshKeys
from mpesa_operator.plan import Generated, Merchant, Observed, Plan, make_plan
from mpesa_operator.platform_settings import Platform
from mpesa_operator.pods import PodView
from mpesa_operator.seal import Seal
from mpesa_operator.spec import MerchantSpec

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SEAL = Seal(b"the operator's secret of the tests")
OWNER = "shops/duka"
FRESH = FreshKeys(SEAL.make_api_key(OWNER), "whsec_ZnJlc2g=")
SECRET = {name: value.encode() for name, value in DARAJA.items()}
PLATFORM = Platform(
    environment="sandbox",
    networks=(ipaddress.ip_network("196.201.212.0/22"),),
    callback_url="https://pay.example/callback",
)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_spec(**changes: Any) -> MerchantSpec:
    """A paybill; a field that is `...` is left out."""
    merged = {**PAYBILL, **changes}
    return MerchantSpec.model_validate({k: v for k, v in merged.items() if v is not ...})


def make_merchant(spec: dict[str, Any] | None = None, **changes: Any) -> Merchant:
    values: dict[str, Any] = {
        "namespace": "shops",
        "name": "duka",
        "uid": "uid-1",
        "generation": 3,
        "created_at": NOON - HOUR,
        "has_finalizer": True,
    }
    return Merchant(**{**values, "spec": make_spec(**(spec or {})), **changes})


def make_observed(**changes: Any) -> Observed:
    return Observed(**{"fresh": FRESH, "seal": SEAL, "credentials": SECRET, **changes})


def plan(merchant: Merchant, observed: Observed, now: datetime = NOON, **platform: Any) -> Plan:
    """The plan on the usual platform, or one with changes."""
    changed = Platform(**{**PLATFORM.__dict__, **platform})
    return make_plan(merchant, observed, now, changed)


def settled(merchant: Merchant, now: datetime = NOON, **observed: Any) -> Observed:
    """What is observed once the first plan was carried out."""
    first = plan(merchant, make_observed(**observed), now)
    assert first.entry is not None
    assert first.secret is not None
    return make_observed(
        **{
            "published": first.entry,
            "generated": Generated(first.secret, owned=True),
            **observed,
        }
    )


def pods_with(entry: bytes | None, *, webhooks: str | None = None) -> tuple[PodView, ...]:
    """An API pod and a worker pod that have loaded the file."""
    digest = None if entry is None else file_digest(entry)
    return (
        PodView("api-1", "api", reachable=True, digest=digest),
        PodView("worker-1", "worker", reachable=True, digest=digest, webhooks=webhooks),
    )

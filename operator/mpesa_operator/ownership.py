"""Which Secrets belong to a MerchantConfig."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mpesa_operator.plan import Merchant
from mpesa_operator.platform_settings import GROUP, KIND, VERSION


def owner_reference(merchant: Merchant) -> dict[str, Any]:
    """The owner reference of what belongs to a MerchantConfig."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "name": merchant.name,
        "uid": merchant.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def is_restored(labels: Mapping[str, str], owners: Iterable[Any], merchant: Merchant) -> bool:
    """Whether the operator made the Secret for an object of this name that is gone."""
    return (
        labels.get("app.kubernetes.io/managed-by") == "mpesa-operator"
        and labels.get("mpesa-gateway.dev/merchant") == merchant.name
        and all(owner.kind == KIND and owner.name == merchant.name for owner in owners)
    )

"""What the platform decides, the same for every merchant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from mpesa_gateway.domain.merchant import Network

Environment = Literal["sandbox", "production"]

GROUP = "mpesa-gateway.dev"
VERSION = "v1alpha1"
KIND = "MerchantConfig"
PLURAL = "merchantconfigs"
FINALIZER = f"{GROUP}/drain"
FIELD_MANAGER = "mpesa-operator"
DEFAULT_GATEWAY = "default"
GENERATED_SUFFIX = "-mpesa-gateway"

# A consumer key and secret are checked again after this long, a little earlier for some.
CHECK_INTERVAL = timedelta(hours=6)
CHECK_RETRY = timedelta(minutes=5)
# How long a new merchant waits for the first check before it is ready without one.
CHECK_PATIENCE = timedelta(seconds=2)
# How long a removed merchant waits for pods that do not confirm it.
UNLOAD_PATIENCE = timedelta(seconds=15)


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Settings that decide what a MerchantConfig may have."""

    environment: Environment
    networks: tuple[Network, ...] = ()
    callback_url: str = ""
    allow_private_webhooks: bool = False
    drain: timedelta = timedelta(seconds=300)
    rotation_overlap: timedelta = timedelta(hours=24)
    resync: timedelta = timedelta(seconds=60)
    shards: int = 1
    # 0 is no limit.
    max_merchants_per_namespace: int = 0


def generated_name(merchant: str) -> str:
    """The Secret that the operator generates for a merchant."""
    return merchant + GENERATED_SUFFIX

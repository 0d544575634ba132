"""`mpesa-gateway operator --release`: lets go of every MerchantConfig, before an uninstall.

Nobody serves our finalizer afterwards, and an object that has it could never be deleted: neither by
its tenant, nor with its namespace, nor with the CRD.
"""

from __future__ import annotations

import asyncio
import time

from mpesa_gateway.telemetry.log import get_logger
from mpesa_operator.cache import gateway_of
from mpesa_operator.cluster import Cluster, ClusterError
from mpesa_operator.platform_settings import FINALIZER
from mpesa_operator.settings import Settings

LOGGER = get_logger(__name__)
# Longer than the grace period of the operator's pod.
PATIENCE_S = 45.0
LOOK_EVERY_S = 1.0
NOT_FOUND = 404


async def release(cluster: Cluster, settings: Settings) -> int:
    """Take the finalizer off every object of the gateway; returns how many had it."""
    # It would put the finalizer on again.
    await cluster.delete_deployment(settings.namespace, f"{settings.fullname}-operator")
    await _wait_for_its_end(cluster, settings)
    released = 0
    for namespace in settings.list_namespaces:
        released += await _release(cluster, namespace, settings.gateway)
    LOGGER.info("finalizers were taken off", merchants=released)
    return released


async def _wait_for_its_end(cluster: Cluster, settings: Settings) -> None:
    give_up = time.monotonic() + PATIENCE_S
    labels = {**settings.release_labels, "app.kubernetes.io/component": "operator"}
    while await cluster.count_pods(settings.namespace, labels):
        if time.monotonic() > give_up:
            LOGGER.warning("the operator's pod does not end")
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def _release(cluster: Cluster, namespace: str, gateway: str) -> int:
    try:
        bodies = await cluster.list_merchants(namespace)
    except ClusterError as error:
        if error.status == NOT_FOUND:
            return 0  # The CRD is gone, and every object with it.
        raise
    released = 0
    for body in bodies:
        meta = body["metadata"]
        if gateway_of(body) == gateway and FINALIZER in (meta.get("finalizers") or ()):
            await cluster.set_finalizer(meta["namespace"], meta["name"], meta["uid"], present=False)
            released += 1
    return released

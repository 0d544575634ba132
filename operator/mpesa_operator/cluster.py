"""Every call to Kubernetes that kopf does not make. The only user of lightkube."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import httpx2
from lightkube import ApiError, AsyncClient
from lightkube.config import client_adapter
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError as LightkubeConfigError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.core_v1 import EventSource, ObjectReference
from lightkube.models.meta_v1 import ObjectMeta, OwnerReference
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Event, Namespace, Pod, Secret
from lightkube.types import PatchType

from mpesa_gateway.errors import GatewayError
from mpesa_operator.credentials import SecretData
from mpesa_operator.ownership import is_restored, owner_reference
from mpesa_operator.plan import Generated, Merchant
from mpesa_operator.platform_settings import FIELD_MANAGER, FINALIZER, GROUP, KIND, PLURAL, VERSION
from mpesa_operator.pods import PodAddress, read_address
from mpesa_operator.seal import SEAL_KEY, make_seal_key

MAKER = f"{FIELD_MANAGER}-maker"
COMPONENTS = ("api", "worker")
TIMEOUT_S = 15.0
MerchantConfig = create_namespaced_resource(GROUP, VERSION, KIND, PLURAL)


class ClusterError(GatewayError):
    """Kubernetes did not do what was asked. `status` is its HTTP status, 0 without an answer.

    The message never has the request: that may hold credentials.
    """

    def __init__(self, what: str, status: int, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.status = status


def _failure(what: str, error: Exception) -> ClusterError:
    if isinstance(error, ApiError):
        return ClusterError(what, error.status.code or 0, error.status.reason or "refused")
    if isinstance(error, httpx2.HTTPStatusError):
        code = error.response.status_code
        return ClusterError(what, code, f"HTTP {code}")
    return ClusterError(what, 0, type(error).__name__)


_FAILURES = (ApiError, httpx2.HTTPError, LightkubeConfigError)


class Cluster:
    """The calls, in our own words. Every one of them raises ClusterError only."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @classmethod
    def connect(cls) -> Cluster:
        """With the pod's service account, or KUBECONFIG."""
        config = KubeConfig.from_env().get()
        timeout = httpx2.Timeout(TIMEOUT_S)
        return cls(AsyncClient(config=config, field_manager=FIELD_MANAGER, timeout=timeout))

    @staticmethod
    def new_http_client(timeout: httpx2.Timeout) -> httpx2.AsyncClient:
        """A client of its own for a stream that stays open, as the same user."""
        config = KubeConfig.from_env().get()
        if config is None:  # `connect` has read the same one.
            raise ClusterError("the connection's settings cannot be read", 0, "none are there")
        parameters = client_adapter.ConnectionParams(timeout=timeout)
        return client_adapter.AsyncClient(config, parameters)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def list_merchants(self, namespace: str) -> list[dict[str, Any]]:
        """Every MerchantConfig of a namespace, or of all with `*`."""
        try:
            found = self._client.list(MerchantConfig, namespace=namespace, chunk_size=500)
            return [_plain(item) async for item in found]
        except _FAILURES as error:
            raise _failure("MerchantConfigs cannot be listed", error) from None

    async def namespace_labels(self) -> dict[str, dict[str, str]]:
        """The labels of every namespace, by name."""
        try:
            found = [it async for it in self._client.list(Namespace, chunk_size=500)]
        except _FAILURES as error:
            raise _failure("namespaces cannot be listed", error) from None
        metas = [it.metadata for it in found if it.metadata is not None]
        return {str(meta.name): dict(meta.labels or {}) for meta in metas}

    async def find_secret(self, namespace: str, name: str) -> SecretData | None:
        """The values of a Secret; None when there is none."""
        secret = await self._find(Secret, namespace, name)
        return None if secret is None else _decoded(secret)

    async def find_merchant(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The MerchantConfig as it is now; None when there is none."""
        try:
            return _plain(await self._client.get(MerchantConfig, name, namespace=namespace))
        except _FAILURES as error:
            failure = _failure("a MerchantConfig cannot be read", error)
            if failure.status == 404:
                return None
            raise failure from None

    async def find_bundle(self, namespace: str, name: str) -> tuple[SecretData, str]:
        """The values of a bundle Secret and its version; `{}` and no version when there is none."""
        secret = await self._find(Secret, namespace, name)
        return ({}, "") if secret is None else (_decoded(secret), _version(secret))

    async def find_generated(self, merchant: Merchant, name: str) -> Generated | None:
        """The Secret with the generated name, and whether it belongs to the MerchantConfig."""
        secret = await self._find(Secret, merchant.namespace, name)
        if secret is None:
            return None
        meta = secret.metadata or ObjectMeta()
        owned = any(owner.uid == merchant.uid for owner in meta.ownerReferences or [])
        restored = not owned and is_restored(
            meta.labels or {}, meta.ownerReferences or [], merchant
        )
        data = _decoded(secret) if owned or restored else {}
        return Generated(data, owned, meta.resourceVersion or "", restored)

    async def _find(self, kind: type[Secret], namespace: str, name: str) -> Secret | None:
        try:
            return await self._client.get(kind, name, namespace=namespace)
        except _FAILURES as error:
            failure = _failure("a Secret cannot be read", error)
            if failure.status == 404:
                return None
            raise failure from None

    async def create_generated(
        self, merchant: Merchant, name: str, data: SecretData, labels: dict[str, str]
    ) -> Generated:
        """Make the generated Secret; a ClusterError with status 409 when there is one already."""
        owners = [OwnerReference(**owner_reference(merchant))]
        metadata = ObjectMeta(
            name=name, namespace=merchant.namespace, labels=labels, ownerReferences=owners
        )
        try:
            made = await self._client.create(
                Secret(metadata=metadata, type="Opaque", data=_encoded(data))
            )
        except _FAILURES as error:
            raise _failure("the generated Secret cannot be written", error) from None
        return Generated(data, owned=True, resource_version=_version(made))

    async def update_generated(
        self, merchant: Merchant, name: str, before: Generated, data: SecretData
    ) -> Generated:
        """Write the values of our own Secret, unless somebody changed it since it was read."""
        gone: dict[str, str | None] = dict.fromkeys(set(before.data) - set(data))
        metadata: dict[str, Any] = {"resourceVersion": before.resource_version}
        if not before.owned:
            metadata["ownerReferences"] = [owner_reference(merchant)]
        patch = {"metadata": metadata, "data": {**gone, **_encoded(data)}}
        try:
            made = await self._client.patch(
                Secret, name, patch, namespace=merchant.namespace, patch_type=PatchType.MERGE
            )
        except _FAILURES as error:
            raise _failure("the generated Secret cannot be written", error) from None
        return Generated(data, owned=True, resource_version=_version(made))

    async def write_bundle(
        self,
        namespace: str,
        name: str,
        data: SecretData,
        labels: dict[str, str],
        *,
        version: str,
    ) -> str:
        """Make a bundle Secret hold exactly these values, unless it is another version by now.

        Returns the new version. Raises ClusterError 409 when somebody else wrote in between.
        """
        metadata = ObjectMeta(name=name, namespace=namespace, labels=labels)
        try:
            if not version:
                # Another manager's, so that it takes nothing away from who was faster.
                empty = Secret(metadata=metadata, type="Opaque")
                made = await self._client.apply(empty, field_manager=MAKER, force=True)
                if made.data:
                    raise ClusterError("the bundle cannot be written", 409, "it was made meanwhile")
                version = _version(made)
            metadata = ObjectMeta(
                name=name, namespace=namespace, labels=labels, resourceVersion=version
            )
            secret = Secret(metadata=metadata, type="Opaque", data=_encoded(data))
            return _version(await self._client.apply(secret, force=True))
        except _FAILURES as error:
            raise _failure("the bundle cannot be written", error) from None

    async def apply_secret(
        self, namespace: str, name: str, data: SecretData, labels: dict[str, str]
    ) -> None:
        """Make a Secret of the gateway hold exactly these values."""
        metadata = ObjectMeta(name=name, namespace=namespace, labels=labels)
        secret = Secret(metadata=metadata, type="Opaque", data=_encoded(data))
        try:
            await self._client.apply(secret, force=True)
        except _FAILURES as error:
            raise _failure("the bundle cannot be written", error) from None

    async def apply_configmap(
        self, namespace: str, name: str, data: dict[str, str], labels: dict[str, str]
    ) -> None:
        """Make a ConfigMap of the gateway hold exactly these values."""
        metadata = ObjectMeta(name=name, namespace=namespace, labels=labels)
        try:
            await self._client.apply(ConfigMap(metadata=metadata, data=data), force=True)
        except _FAILURES as error:
            raise _failure("the allowlist cannot be written", error) from None

    async def set_finalizer(
        self, namespace: str, name: str, uid: str, *, present: bool
    ) -> dict[str, Any] | None:
        """Add or remove our finalizer, whatever others do to the list. None when it is gone."""
        for _ in range(5):
            try:
                found = await self._client.get(MerchantConfig, name, namespace=namespace)
                return await self._set_finalizer(_plain(found), uid, present=present)
            except _FAILURES as error:
                failure = _failure("the finalizer cannot be written", error)
                if failure.status == 404:
                    return None
                if failure.status != 409:
                    raise failure from None
        raise ClusterError("the finalizer cannot be written", 409, "it keeps changing")

    async def _set_finalizer(
        self, found: dict[str, Any], uid: str, *, present: bool
    ) -> dict[str, Any] | None:
        meta = found["metadata"]
        finalizers = [it for it in meta.get("finalizers") or [] if it != FINALIZER]
        wanted = [*finalizers, FINALIZER] if present else finalizers
        if meta["uid"] != uid or (present and meta.get("deletionTimestamp")):
            return None
        version = {"resourceVersion": meta["resourceVersion"], "finalizers": wanted}
        patched = await self._client.patch(
            MerchantConfig,
            meta["name"],
            {"metadata": version},
            namespace=meta["namespace"],
            patch_type=PatchType.MERGE,
        )
        return _plain(patched)

    async def delete_deployment(self, namespace: str, name: str) -> None:
        """Delete a Deployment, its pods in the background; one that is gone needs nothing."""
        try:
            await self._client.delete(Deployment, name, namespace=namespace)
        except _FAILURES as error:
            failure = _failure("the operator's Deployment cannot be deleted", error)
            if failure.status != 404:
                raise failure from None

    async def count_pods(self, namespace: str, labels: Mapping[str, str]) -> int:
        """How many pods have these labels."""
        try:
            found = self._client.list(Pod, namespace=namespace, labels=cast("Any", dict(labels)))
            return len([pod async for pod in found])
        except _FAILURES as error:
            raise _failure("pods cannot be listed", error) from None

    async def patch_status(
        self, merchant: Merchant, status: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Write the status; None when the object is gone."""
        body = {"metadata": {"uid": merchant.uid}, "status": status}
        try:
            patched = await self._client.patch(
                MerchantConfig.Status,
                merchant.name,
                cast("Any", body),
                namespace=merchant.namespace,
                patch_type=PatchType.MERGE,
            )
        except _FAILURES as error:
            failure = _failure("the status cannot be written", error)
            # 409: an object of the same name that is another one by now.
            if failure.status in (404, 409):
                return None
            raise failure from None
        return _plain(patched)

    async def ready_pods(
        self, namespace: str, release: Mapping[str, str], default_port: int
    ) -> list[PodAddress]:
        """The release's API and worker pods that are ready and not on their way out."""
        try:
            pods = [pod async for pod in self._pods(namespace, release)]
        except _FAILURES as error:
            raise _failure("pods cannot be listed", error) from None
        found = (read_address(pod, default_port) for pod in pods)
        return sorted((pod for pod in found if pod is not None), key=lambda pod: pod.name)

    def _pods(self, namespace: str, release: Mapping[str, str]) -> Any:
        labels = {**release, "app.kubernetes.io/component": list(COMPONENTS)}
        return self._client.list(Pod, namespace=namespace, labels=cast("Any", labels))

    async def annotate_pods(
        self, namespace: str, release: Mapping[str, str], annotations: Mapping[str, str]
    ) -> int:
        """Annotate the release's API and worker pods, ready or not; how many there are.

        The kubelet then looks at the pod again, and refreshes its volumes.
        """
        try:
            names = [
                pod.metadata.name
                async for pod in self._pods(namespace, release)
                if pod.metadata and pod.metadata.name
            ]
        except _FAILURES as error:
            raise _failure("pods cannot be listed", error) from None
        await asyncio.gather(*(self.annotate_pod(namespace, it, annotations) for it in names))
        return len(names)

    async def annotate_pod(self, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Annotate one pod; a pod that is gone needs nothing."""
        patch = {"metadata": {"annotations": dict(annotations)}}
        try:
            await self._client.patch(
                Pod, name, patch, namespace=namespace, patch_type=PatchType.MERGE
            )
        except _FAILURES as error:
            failure = _failure("a pod cannot be annotated", error)
            if failure.status != 404:
                raise failure from None

    async def make_seal(self, namespace: str, name: str, labels: dict[str, str]) -> SecretData:
        """Make the operator's own secret, and return what is there. Never replaces one."""
        await self.apply_secret(namespace, name, {SEAL_KEY: make_seal_key()}, labels)
        return await self.find_secret(namespace, name) or {}

    async def post_event(
        self, merchant: Merchant, *, warning: bool, reason: str, text: str
    ) -> None:
        """Tell what happened where `kubectl describe` shows it."""
        now = datetime.now(UTC)
        event = Event(
            metadata=ObjectMeta(generateName=f"{merchant.name}-", namespace=merchant.namespace),
            involvedObject=ObjectReference(
                apiVersion=f"{GROUP}/{VERSION}",
                kind=KIND,
                name=merchant.name,
                namespace=merchant.namespace,
                uid=merchant.uid,
            ),
            type="Warning" if warning else "Normal",
            reason=reason,
            message=text[:1024],
            count=1,
            firstTimestamp=now,
            lastTimestamp=now,
            source=EventSource(component=FIELD_MANAGER),
        )
        try:
            await self._client.create(event)
        except _FAILURES as error:
            raise _failure("an event cannot be posted", error) from None


def _plain(item: Any) -> dict[str, Any]:
    """The object as it came, metadata included."""
    return dict(item)


def _version(secret: Secret) -> str:
    return (secret.metadata.resourceVersion if secret.metadata else None) or ""


def _decoded(secret: Secret) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in (secret.data or {}).items()}


def _encoded(data: SecretData) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in data.items()}

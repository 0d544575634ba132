"""What the gateway's pods say about a merchant, and what follows for Loaded and WebhookHealthy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mpesa_operator.conditions import LOADED, WEBHOOK_HEALTHY, Condition
from mpesa_operator.documents import parse_json

METRICS_PORT_NAME = "metrics"
REPORT_VERSION = 1
NAMED_IN_MESSAGE = 3
LONGEST_SENTENCE = 256


@dataclass(frozen=True)
class PodAddress:
    """A ready pod that can be asked."""

    name: str
    component: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where it reports."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/merchants"


@dataclass(frozen=True)
class Report:
    """What one pod said: digest and webhook health by merchant, problem by file."""

    digests: Mapping[str, str] = field(default_factory=dict)
    webhooks: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


def read_report(body: bytes) -> Report:
    """A pod's answer. Raises ValueError when it is not one that we understand."""
    document = parse_json(body)
    if not isinstance(document, dict) or document.get("version") != REPORT_VERSION:
        raise ValueError("not a report of this version")
    merchants = document.get("merchants")
    errors = document.get("errors")
    if not isinstance(merchants, dict) or not isinstance(errors, dict):
        raise ValueError("a report without merchants and errors")  # noqa: TRY004 - bad content
    return Report(
        digests={key: str(_of(value, "digest")) for key, value in merchants.items()},
        webhooks={
            key: str(health)
            for key, value in merchants.items()
            if (health := _of(value, "webhooks")) is not None
        },
        errors={name: str(sentence)[:LONGEST_SENTENCE] for name, sentence in errors.items()},
    )


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


@dataclass(frozen=True)
class PodView:
    """What one pod says about one merchant. `reachable` is False when it said nothing."""

    name: str
    component: str
    reachable: bool
    digest: str | None = None
    error: str | None = None
    webhooks: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """All ready pods at one moment; the report is None where a pod did not answer."""

    pods: tuple[tuple[PodAddress, Report | None], ...] = ()

    def view(self, key: str, file: str) -> tuple[PodView, ...]:
        """What each pod says about one merchant."""
        return tuple(
            PodView(pod.name, pod.component, reachable=False)
            if report is None
            else PodView(
                pod.name,
                pod.component,
                reachable=True,
                digest=report.digests.get(key),
                error=report.errors.get(file),
                webhooks=report.webhooks.get(key),
            )
            for pod, report in self.pods
        )


def loaded(digest: str, pods: tuple[PodView, ...]) -> Condition:
    """Whether every ready pod has loaded exactly this file."""
    if not any(pod.component == "api" for pod in pods):
        return Condition(LOADED, "Unknown", "PodsUnreachable", "No API pod is ready.")
    refusing = [pod for pod in pods if pod.error is not None]
    if refusing:
        message = f"{_names(refusing)} refused the file: {refusing[0].error}"
        return Condition(LOADED, "False", "FileRefused", message)
    behind = [pod for pod in pods if pod.reachable and pod.digest != digest]
    if behind:
        message = f"{len(behind)} of {len(pods)} pods have not loaded it yet: {_names(behind)}."
        return Condition(LOADED, "False", "Propagating", message)
    silent = [pod for pod in pods if not pod.reachable]
    if silent:
        message = f"{len(silent)} of {len(pods)} pods do not answer: {_names(silent)}."
        return Condition(LOADED, "Unknown", "PodsUnreachable", message)
    return Condition(LOADED, "True", "Loaded", f"All {len(pods)} ready pods have loaded it.")


def webhook_healthy(pods: tuple[PodView, ...]) -> Condition:
    """What the workers say about the merchant's endpoints. It does not change Ready."""
    said = {pod.webhooks for pod in pods if pod.webhooks is not None}
    if "failing" in said:
        message = (
            "Deliveries to the merchant's endpoint keep failing; they are kept and tried again."
        )
        return Condition(WEBHOOK_HEALTHY, "False", "Failing", message)
    if "healthy" in said:
        return Condition(WEBHOOK_HEALTHY, "True", "Healthy", "Webhooks are being delivered.")
    return Condition(WEBHOOK_HEALTHY, "Unknown", "NoDeliveries", "Nothing was delivered lately.")


def _names(pods: list[PodView]) -> str:
    names = sorted(pod.name for pod in pods)
    shown = ", ".join(names[:NAMED_IN_MESSAGE])
    return shown if len(names) <= NAMED_IN_MESSAGE else f"{shown} and others"


def read_address(pod: Any, default_port: int) -> PodAddress | None:
    """Where a ready pod of Kubernetes reports: its IP, and the port that it calls `metrics`."""
    meta, status, spec = pod.metadata, pod.status, pod.spec
    if meta is None or status is None or spec is None:
        return None
    ready = any(it.type == "Ready" and it.status == "True" for it in status.conditions or [])
    if not ready or meta.deletionTimestamp is not None or not status.podIP:
        return None
    ports = [port for container in spec.containers for port in container.ports or []]
    port = next((it.containerPort for it in ports if it.name == METRICS_PORT_NAME), default_port)
    component = (meta.labels or {}).get("app.kubernetes.io/component", "")
    return PodAddress(meta.name or "", component, status.podIP, port)

"""A gateway that helm has installed, and what belongs to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness import shell
from harness.docker import ROOT, gateway_image
from harness.kube import Kube, Object

CHART = ROOT / "charts" / "mpesa-gateway"
TIMEOUT_S = 240.0
# `kubectl exec` into the database: as its own user, through its own network.
PSQL = 'PGPASSWORD=$POSTGRES_PASSWORD exec psql -qAtX -h 127.0.0.1 -U mpesa mpesa_gateway -c "$1"'


def image_values(image: str) -> dict[str, str]:
    """The values that name an image."""
    repository, _, tag = image.rpartition(":")
    return {"image.repository": repository, "image.tag": tag}


def stand_ins() -> dict[str, str]:
    """The values of a cluster whose images have other names than the official ones."""
    named = {
        "postgresql.image": os.environ.get("POSTGRES_IMAGE", ""),
        "redis.image": os.environ.get("REDIS_IMAGE", ""),
    }
    return {**image_values(gateway_image()), **{name: it for name, it in named.items() if it}}


@dataclass(frozen=True)
class Release:
    """`name` in the namespace of `kube`."""

    kube: Kube
    name: str

    @property
    def fullname(self) -> str:
        return f"{self.name}-mpesa-gateway"

    @property
    def api_url(self) -> str:
        """As pods of any namespace reach it."""
        return f"http://{self.fullname}-api.{self.kube.namespace}.svc"

    @property
    def simulator_url(self) -> str:
        """The chart's own stand-in for Safaricom."""
        return f"http://{self.fullname}-simulator.{self.kube.namespace}.svc:8080"

    @property
    def api_key(self) -> str:
        """The key of the merchant `default`."""
        return self.app_secret()["MPESA_INTERNAL_SECRET"]

    def app_secret(self) -> dict[str, str]:
        """What the chart generated."""
        return self.kube.secret(f"{self.fullname}-app")

    def helm(self, *arguments: str) -> str:
        """What helm says. Fails with its complaint."""
        return shell.output(
            "helm", "--namespace", self.kube.namespace, *arguments, timeout_s=TIMEOUT_S + 30
        )

    def install(self, values: Mapping[str, Any]) -> None:
        """Install the chart, and return once everything is ready."""
        self.helm("install", self.name, str(CHART), *_waiting(), *_sets(values))

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Change some values and keep the others, and return once everything is ready."""
        self.helm("upgrade", self.name, str(CHART), "--reuse-values", *_waiting(), *_sets(values))

    def rollback(self) -> None:
        """To the revision before, and return once everything is ready."""
        self.helm("rollback", self.name, *_waiting())

    def pods(self, component: str) -> list[Object]:
        """The component's pods that are not being deleted."""
        return self.kube.pods(self.name, component)

    def wait_until_gone(self, names: set[str]) -> None:
        """Until these pods have ended, which is a while after others have taken over."""
        for name in sorted(names):
            self.kube.run("wait", "--for=delete", f"pod/{name}", "--timeout=120s", timeout_s=130)

    def names(self, *components: str) -> set[str]:
        """The names of the pods of these components."""
        return {pod["metadata"]["name"] for it in components for pod in self.pods(it)}

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of the bundled database, as an outside observer sees them."""
        wrapped = f"SELECT coalesce(json_agg(found), '[]') FROM ({query}) AS found"
        text = self.kube.execute(
            f"statefulset/{self.fullname}-postgresql", "sh", "-c", PSQL, "psql", wrapped
        )
        rows: list[dict[str, Any]] = json.loads(text)
        return rows

    def restarts(self) -> dict[str, int]:
        """How often each container of API and worker was started again, by pod."""
        return {
            pod["metadata"]["name"]: sum(
                it["restartCount"] for it in pod["status"].get("containerStatuses", [])
            )
            for component in ("api", "worker")
            for pod in self.pods(component)
        }


@dataclass(frozen=True)
class Installed:
    """The first revision, and how long it took."""

    release: Release
    seconds: float


def _waiting() -> tuple[str, ...]:
    return ("--wait", "--wait-for-jobs", f"--timeout={TIMEOUT_S:.0f}s")


def _sets(values: Mapping[str, Any]) -> list[str]:
    """As JSON, so that numbers stay numbers and tags text."""
    return [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]

"""The chart as Helm renders it, and as parsed objects."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from harness import shell
from harness.needs import need

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "mpesa-gateway"
VALUE_SETS = sorted((CHART / "ci").glob("*.yaml"))
RELEASE, NAMESPACE = "g", "default"
FULLNAME = f"{RELEASE}-mpesa-gateway"
# Helm knows no cluster here, and the chart asks for a version.
KUBE_VERSION = "1.34.4"

Object = dict[str, Any]


def need_helm() -> None:
    """Helm on the PATH."""
    need(shutil.which("helm"), "helm is not on the PATH")


def helm_template(values: Mapping[str, Any] | Path | None = None, *options: str) -> Any:
    """The ended `helm template`."""
    need_helm()
    given = ["--values", str(values)] if isinstance(values, Path) else ["--values", "-"]
    stdin = "" if isinstance(values, Path) else json.dumps(values or {})
    command = ["helm", "template", RELEASE, str(CHART), "--kube-version", KUBE_VERSION]
    return shell.run(*command, *given, *options, stdin=stdin, env={"HELM_NAMESPACE": NAMESPACE})


def rendered_text(values: Mapping[str, Any] | Path | None = None, *options: str) -> str:
    """What the chart makes of these values. Fails with Helm's complaint."""
    done = helm_template(values, *options)
    assert done.returncode == 0, done.stderr
    text: str = done.stdout
    return text


@cache
def _render(key: str) -> list[Object]:
    values = Path(key) if key.startswith("/") else json.loads(key)
    return [it for it in yaml.safe_load_all(rendered_text(values)) if it]


def render(values: Mapping[str, Any] | Path | None = None) -> list[Object]:
    """The chart's objects with these values; rendered once for each."""
    key = str(values) if isinstance(values, Path) else json.dumps(values or {}, sort_keys=True)
    return [dict(it) for it in _render(key)]


def refusal(values: Mapping[str, Any], *options: str) -> str:
    """Why Helm does not render these values. Fails when it does."""
    done = helm_template(values, *options)
    assert done.returncode != 0, "rendered, and should have been refused"
    problem: str = done.stderr
    return problem


def component(item: Object) -> str:
    """The component that an object belongs to; empty when it belongs to all."""
    name: str = item["metadata"].get("labels", {}).get("app.kubernetes.io/component", "")
    return name


def of(objects: Iterable[Object], kind: str, name: str | None = None) -> list[Object]:
    """The objects of a kind, and of a component where one is named."""
    return [it for it in objects if it["kind"] == kind and name in (None, component(it))]


def only(objects: Iterable[Object], kind: str, name: str | None = None) -> Object:
    """The one object of a kind and component."""
    found = of(objects, kind, name)
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pod_templates(objects: Iterable[Object]) -> dict[str, Object]:
    """Metadata and spec of every pod that would run, by component."""
    found: dict[str, Object] = {}
    for item in objects:
        if item["kind"] in {"Deployment", "StatefulSet", "Job"}:
            found[component(item)] = item["spec"]["template"]
        elif item["kind"] == "Pod":
            found[component(item)] = item
    return found


def containers(pod: Object) -> list[Object]:
    """Init containers and containers."""
    spec = pod["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def main_container(objects: Iterable[Object], name: str) -> Object:
    """The first container of a component."""
    container: Object = pod_templates(objects)[name]["spec"]["containers"][0]
    return container


def environment(container: Object) -> dict[str, Any]:
    """Variables of a container: the value, or where it comes from."""
    names = [it["name"] for it in container["env"]]
    assert len(names) == len(set(names)), f"set twice: {names}"
    return {it["name"]: it.get("value", it.get("valueFrom")) for it in container["env"]}


def need_cluster() -> None:
    """An API server that answers, and kubectl."""
    need_helm()
    need(shutil.which("kubectl"), "kubectl is not on the PATH")
    need(os.environ.get("KUBECONFIG"), "KUBECONFIG is not set")
    need(shell.succeeds("kubectl", "get", "--raw", "/readyz"), "the API server does not answer")

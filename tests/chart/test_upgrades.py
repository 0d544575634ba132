"""What an upgrade changes: on an API server, because the chart looks up what is there."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from harness import shell
from harness.helm import CHART, KUBE_VERSION, RELEASE, Object, of, only, pod_templates

VALUES: dict[str, Any] = {
    "simulator": {"enabled": True},
    "image": {"tag": "7"},
    "crds": {"enabled": False},
}


def rendered(chart: Path, namespace: str, values: dict[str, Any] | None = None) -> list[Object]:
    """The objects, with what `lookup` finds in the namespace."""
    text = shell.output(
        *("helm", "template", RELEASE, str(chart), "--namespace", namespace),
        *("--dry-run=server", "--is-upgrade", "--kube-version", KUBE_VERSION, "--values", "-"),
        stdin=json.dumps({**VALUES, **(values or {})}),
    )
    return [it for it in yaml.safe_load_all(text) if it]


def apply(namespace: str, objects: list[Object]) -> None:
    listing = {"apiVersion": "v1", "kind": "List", "items": objects}
    shell.output(
        "kubectl", "apply", "--namespace", namespace, "--filename=-", stdin=json.dumps(listing)
    )


def next_version(tmp_path: Path) -> Path:
    """The same chart under another version."""
    copy = tmp_path / "mpesa-gateway"
    shutil.copytree(CHART, copy)
    chart = yaml.safe_load((copy / "Chart.yaml").read_text("utf-8"))
    chart |= {"version": "0.99.0", "appVersion": "0.99.0"}
    (copy / "Chart.yaml").write_text(yaml.safe_dump(chart), encoding="utf-8")
    return copy


def test_a_new_version_of_the_chart_alone_changes_no_pod(namespace: str, tmp_path: Path) -> None:
    apply(namespace, of(rendered(CHART, namespace), "Secret"))
    before = pod_templates(rendered(CHART, namespace))
    after = pod_templates(rendered(next_version(tmp_path), namespace))
    assert {"api", "worker", "postgresql", "redis", "operator"} <= set(before)
    # The Pod of `helm test` is made anew each time.
    changed = [name for name, pod in before.items() if after[name] != pod and name != "test"]
    assert changed == []


def test_another_password_does_restart_the_pods(namespace: str) -> None:
    secrets = of(rendered(CHART, namespace), "Secret")
    apply(namespace, secrets)
    before = pod_templates(rendered(CHART, namespace))
    for secret in secrets:
        if secret["metadata"]["name"].endswith("-redis"):
            secret["stringData"]["password"] = "another"
    apply(namespace, secrets)
    after = pod_templates(rendered(CHART, namespace))
    changed = {name for name, pod in before.items() if after[name] != pod}
    assert changed == {"api", "worker", "redis"}


def test_a_migration_that_failed_is_tried_again(namespace: str) -> None:
    job = only(rendered(CHART, namespace), "Job", "migrate")
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never", "its log would go"
    # No controller shall start it, where there is one.
    apply(namespace, [{**job, "spec": {**job["spec"], "managedBy": "example.com/nobody"}}])
    assert (
        only(rendered(CHART, namespace), "Job", "migrate")["metadata"]["name"]
        == job["metadata"]["name"]
    )

    # Not long ago: what has ended is removed after a day.
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    failed = [
        {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": at}
        for kind in ("FailureTarget", "Failed")
    ]
    status = {"status": {"conditions": failed, "startTime": at, "failed": 21}}
    shell.output(
        *("kubectl", "--namespace", namespace, "patch", "job", job["metadata"]["name"]),
        *("--subresource=status", "--type=merge", f"--patch={json.dumps(status)}"),
    )
    again = only(rendered(CHART, namespace), "Job", "migrate")["metadata"]["name"]
    assert again.startswith(f"{job['metadata']['name']}-")


def test_two_operators_of_one_gateway_are_refused(namespace: str) -> None:
    """Found by the bindings of the release that is there."""
    here = {"operator": {"watchNamespaces": [namespace], "gateway": namespace}}
    apply(namespace, of(rendered(CHART, namespace, here), "RoleBinding"))
    assert rendered(CHART, namespace, here), "its own bindings are no rival"

    command = ("helm", "template", "second", str(CHART), "--namespace", namespace)
    options = ("--dry-run=server", "--kube-version", KUBE_VERSION, "--values", "-")
    for gateway, is_refused in ((namespace, True), (f"{namespace}-2", False)):
        values = {**VALUES, "operator": {**here["operator"], "gateway": gateway}}
        done = shell.run(*command, *options, stdin=json.dumps(values))
        assert (done.returncode != 0) is is_refused, done.stderr
        assert ("two operators would fight" in done.stderr) is is_refused

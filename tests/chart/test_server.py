"""The chart against a real API server: every kind is taken, and secrets are made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness import shell
from harness.helm import (
    CHART,
    FULLNAME,
    RELEASE,
    VALUE_SETS,
    need_cluster,
    rendered_text,
)

# Nothing runs: this is about objects.
IDLE = {
    "simulator": {"enabled": True},
    "crds": {"enabled": False},
    "rbac": {"aggregateClusterRoles": False},
    "operator": {"enabled": False},
    "migrations": {"enabled": False},
    "api": {"replicaCount": 0},
    "worker": {"replicaCount": 0},
}
MADE = ("app", "postgresql", "redis", "simulator")


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_the_server_would_take_every_object(values: Path) -> None:
    need_cluster()
    text = rendered_text(values)
    done = shell.run(
        "kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
    )
    assert done.returncode == 0, done.stderr
    # What another way of installing left there is not the manifests' fault.
    warnings = [it for it in done.stderr.splitlines() if "last-applied-configuration" not in it]
    assert not warnings
    objects = [it for it in yaml.safe_load_all(text) if it]
    assert len(done.stdout.splitlines()) == len(objects)


def helm(namespace: str, *arguments: str) -> str:
    values = json.dumps(IDLE)
    return shell.output("helm", *arguments, "--namespace", namespace, "--values", "-", stdin=values)


def secrets(namespace: str) -> dict[str, dict[str, str]]:
    found = {}
    for name in MADE:
        answer = shell.output(
            "kubectl", "-n", namespace, "get", "secret", f"{FULLNAME}-{name}", "-o", "json"
        )
        found[name] = json.loads(answer)["data"]
    return found


def checksums(namespace: str) -> str:
    return shell.output(
        "kubectl",
        "-n",
        namespace,
        "get",
        "deployment",
        f"{FULLNAME}-api",
        "-o",
        "jsonpath={.spec.template.metadata.annotations}",
    )


def test_generated_secrets_survive_upgrades(namespace: str) -> None:
    helm(namespace, "install", RELEASE, str(CHART))
    before, pods = secrets(namespace), checksums(namespace)
    assert all(before[name] for name in MADE)
    helm(namespace, "upgrade", RELEASE, str(CHART), "--set", "worker.keda.rowsPerReplica=7")
    assert secrets(namespace) == before
    # Nor is a pod restarted for secrets that are the same.
    assert checksums(namespace) == pods


def test_the_password_of_a_volume_outlives_the_release(namespace: str) -> None:
    helm(namespace, "install", RELEASE, str(CHART))
    before = secrets(namespace)
    shell.output("helm", "uninstall", RELEASE, "--namespace", namespace)
    helm(namespace, "install", RELEASE, str(CHART))
    after = secrets(namespace)
    assert after["postgresql"] == before["postgresql"]
    assert after["app"] != before["app"]


def test_generated_secrets_are_in_no_value_of_the_release(namespace: str) -> None:
    helm(namespace, "install", RELEASE, str(CHART))
    values = shell.output("helm", "get", "values", RELEASE, "--all", "--namespace", namespace)
    assert "whsec_" not in values
    assert "generated" not in values


def test_notes_show_the_next_command(namespace: str) -> None:
    notes = helm(namespace, "install", RELEASE, str(CHART))
    assert f"helm -n {namespace} test {RELEASE} --logs" in notes
    assert f"get secret {FULLNAME}-app" in notes
    assert "The simulator is enabled: no money moves." in notes
    assert "api.replicaCount is 0" in notes

"""What platform teams set: umbrellas, mirrors, Services, monitors, probes, limits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import shell
from harness.helm import (
    CHART,
    KUBE_VERSION,
    ROOT,
    VALUE_SETS,
    Object,
    containers,
    environment,
    main_container,
    of,
    only,
    pod_templates,
    render,
)
from harness.needs import need

TRIAL = {"simulator": {"enabled": True}}


def umbrella(directory: Path, *aliases: str, values: dict[str, Any]) -> list[Object]:
    """What a chart renders that depends on ours, under these names."""
    chart = directory / "umbrella"
    chart.mkdir()
    dependencies = [
        {"name": "mpesa-gateway", "version": "*", "repository": f"file://{CHART}"}
        | ({"alias": alias} if alias != "mpesa-gateway" else {})
        | {"condition": f"{alias}.enabled"}
        for alias in aliases
    ]
    meta = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0"}
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**meta, "dependencies": dependencies}))
    (chart / "charts").mkdir()
    (chart / "charts" / "mpesa-gateway").symlink_to(CHART)
    text = shell.output(
        *("helm", "template", "x", str(chart), "--kube-version", KUBE_VERSION, "--values", "-"),
        stdin=json.dumps(values),
    )
    return [it for it in yaml.safe_load_all(text) if it]


def test_an_umbrella_may_switch_it_off(tmp_path: Path) -> None:
    values = {"mpesa-gateway": {"enabled": False}}
    assert umbrella(tmp_path, "mpesa-gateway", values=values) == []


def test_two_aliases_of_one_release_share_nothing(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "sandbox": {**TRIAL, "enabled": True, "operator": {"gateway": "sandbox"}},
        "live": {"crds": {"enabled": False}, "operator": {"gateway": "live"}},
    }
    objects = umbrella(tmp_path, "sandbox", "live", values=values)
    names = [(it["kind"], it["metadata"]["name"]) for it in objects]
    assert len(names) == len(set(names))
    workloads = [*of(objects, "Deployment"), *of(objects, "StatefulSet")]
    selectors = [json.dumps(it["spec"]["selector"]["matchLabels"]) for it in workloads]
    assert len(selectors) == len(set(selectors))
    for service in of(objects, "Service"):
        chosen = [
            it["metadata"]["name"]
            for it in workloads
            if service["spec"]["selector"].items()
            <= it["spec"]["template"]["metadata"]["labels"].items()
        ]
        alias = service["metadata"]["name"].split("-")[1]
        assert chosen == [it for it in chosen if it.startswith(f"x-{alias}-")]
        assert chosen
    operators = {
        it["metadata"]["name"]: environment(it["spec"]["template"]["spec"]["containers"][0])
        for it in of(objects, "Deployment", "operator")
    }
    assert {it["MPESA_OPERATOR_NAME"] for it in operators.values()} == {"sandbox", "live"}


def test_another_name_is_in_names_and_labels() -> None:
    api = only(render({"nameOverride": "pay"}), "Deployment", "api")
    assert api["metadata"]["name"] == "g-pay-api"
    assert api["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] == "pay"


def test_the_platforms_registry_stands_before_every_image() -> None:
    shared = {"imageRegistry": "r.example:5000/m", "imagePullSecrets": ["one", {"name": "two"}]}
    values = {**TRIAL, "global": shared, "imagePullSecrets": [{"name": "two"}]}
    images = set()
    for name, pod in pod_templates(render(values)).items():
        images |= {it["image"] for it in containers(pod)}
        assert pod["spec"]["imagePullSecrets"] == [{"name": "two"}, {"name": "one"}], name
    assert images == {
        "r.example:5000/m/mpesa-gateway/mpesa-gateway:0.1.0",
        "r.example:5000/m/postgres:17-bookworm",
        "r.example:5000/m/redis:7-bookworm",
    }


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_every_container_has_a_memory_limit_and_no_cpu_limit(values: Path) -> None:
    for name, pod in pod_templates(render(values)).items():
        assert pod["spec"]["enableServiceLinks"] is False, name
        for container in containers(pod):
            if container["name"] in {"tail", "first"}:
                continue
            assert set(container["resources"]["limits"]) == {"memory"}, name


def test_the_service_has_what_a_load_balancer_needs() -> None:
    service = {
        "type": "LoadBalancer",
        "loadBalancerClass": "example.com/nlb",
        "loadBalancerSourceRanges": ["196.201.214.0/24"],
        "nodePort": 30081,
        "ipFamilyPolicy": "PreferDualStack",
        "ipFamilies": ["IPv6", "IPv4"],
    }
    spec = only(render({"api": {"service": service}}), "Service", "api")["spec"]
    assert "externalTrafficPolicy" not in spec
    assert spec["ports"][0]["nodePort"] == 30081
    for key in set(service) - {"nodePort"}:
        assert spec[key] == service[key], key
    walled = {"api": {"service": service}, "safaricom": {"allowedCIDRs": ["196.201.214.0/24"]}}
    spec = only(render(walled), "Service", "api")["spec"]
    assert spec["externalTrafficPolicy"] == "Local", "a node would call in Safaricom's place"


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_monitors_take_time_outs_and_relabelings(kind: str) -> None:
    wish = {
        "scrapeTimeout": "7s",
        "relabelings": [{"action": "labeldrop", "regex": "pod"}],
        "metricRelabelings": [{"action": "drop", "regex": "x"}],
    }
    key = kind[0].lower() + kind[1:]
    spec = only(render({"metrics": {key: {"enabled": True, **wish}}}), kind)["spec"]
    endpoint = spec.get("endpoints", spec.get("podMetricsEndpoints"))[0]
    assert wish.items() <= endpoint.items()


@pytest.mark.parametrize("name", ["api", "worker"])
def test_probes_variables_and_annotations_are_the_users_to_add(name: str) -> None:
    objects = render(
        {
            name: {
                "extraEnvFrom": [{"secretRef": {"name": "proxy"}}],
                "deploymentAnnotations": {"reloader.example.com/auto": "true"},
                "livenessProbe": {"timeoutSeconds": 9},
                "readinessProbe": {"failureThreshold": 7},
                "startupProbe": {"exec": {"command": ["true"]}},
            }
        }
    )
    container = main_container(objects, name)
    assert container["envFrom"] == [{"secretRef": {"name": "proxy"}}]
    deployment = only(objects, "Deployment", name)
    assert deployment["metadata"]["annotations"] == {"reloader.example.com/auto": "true"}
    assert container["livenessProbe"]["timeoutSeconds"] == 9
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["failureThreshold"] == 7
    assert "httpGet" not in container["startupProbe"]


def test_a_platform_may_bring_its_own_roles() -> None:
    objects = render({"rbac": {"create": False, "aggregateClusterRoles": False}})
    kinds = {it["kind"] for it in objects}
    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    assert of(objects, "Deployment", "operator")


def test_straight_from_safaricom_is_said_with_a_word() -> None:
    values = {"api": {"trustedProxies": ["none"]}}
    container = main_container(render(values), "api")
    assert environment(container)["MPESA_TRUSTED_PROXIES"] == ""


@pytest.mark.parametrize("directory", ["k8s", "k8s/production"])
def test_an_overlay_survives_its_second_image(directory: str, tmp_path: Path) -> None:
    """What cannot be changed must not hold the image."""
    need(shutil.which("kubectl"), "kubectl is not on the PATH")
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s", ignore=shutil.ignore_patterns("secrets"))
    shell.output(str(tmp_path / "k8s" / "make-secrets"))
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    built = []
    for tag in ("0.1.0", "0.1.1"):
        image = {"name": "ghcr.io/mpesa-gateway/mpesa-gateway", "newTag": tag}
        wish = {"resources": [f"../{directory}"], "images": [image]}
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(wish))
        built.append(list(yaml.safe_load_all(shell.output("kubectl", "kustomize", str(overlay)))))
    assert not of(built[0], "Job")
    for name in ("api", "worker"):
        first = pod_templates(built[1])[name]["spec"]["initContainers"][0]
        assert first["args"][0] == "migrate"
        assert "--wait" not in first["args"]
        assert first["image"].endswith(":0.1.1")

"""Every pod: who it runs as, what it may do, what it is called, how it starts and stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.helm import (
    RELEASE,
    VALUE_SETS,
    Object,
    component,
    containers,
    environment,
    main_container,
    of,
    only,
    pod_templates,
    render,
)

TRIAL = {"simulator": {"enabled": True}}
# `release` is a hook of the uninstall.
OURS = ("api", "worker", "operator", "migrate", "simulator")
COMPONENTS = {*OURS, "postgresql", "redis"}
every_set = pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
# Containers that a user adds are the user's.
ADDED = {"tail", "first"}


def ours(pod: Object) -> list[Object]:
    return [it for it in containers(pod) if it["name"] not in ADDED]


@every_set
def test_every_pod_is_restricted(values: Path) -> None:
    for name, pod in pod_templates(render(values)).items():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert context["runAsUser"] == (999 if name in {"postgresql", "redis"} else 10001), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"]), name


@every_set
def test_every_container_is_restricted(values: Path) -> None:
    for name, pod in pod_templates(render(values)).items():
        for container in ours(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "privileged" not in context, name


@every_set
def test_only_the_operator_has_a_token(values: Path) -> None:
    for name, pod in pod_templates(render(values)).items():
        assert pod["spec"]["automountServiceAccountToken"] is (name in {"operator", "release"}), (
            name
        )
        for volume in pod["spec"].get("volumes", []):
            sources = volume.get("projected", {}).get("sources", [])
            assert not [it for it in sources if "serviceAccountToken" in it], name
    for account in of(render(values), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@every_set
def test_the_operator_knows_no_database(values: Path) -> None:
    operator = pod_templates(render(values)).get("operator")
    if operator is None:
        assert values.stem == "bare-values"
        return
    for container in ours(operator):
        assert not {"MPESA_DATABASE_URL", "MPESA_REDIS_URL"} & set(environment(container))


@every_set
def test_pods_have_what_a_read_only_root_needs(values: Path) -> None:
    for name, pod in pod_templates(render(values)).items():
        if name == "test":
            continue
        for container in ours(pod):
            mounts = {it["mountPath"] for it in container["volumeMounts"]}
            assert "/tmp" in mounts, name  # noqa: S108 - the path in the pod


def test_the_trial_has_every_component() -> None:
    assert set(pod_templates(render(TRIAL))) == COMPONENTS | {"release", "test"}


@every_set
def test_labels_of_pods_are_fixed(values: Path) -> None:
    objects = render(values)
    for name, pod in pod_templates(objects).items():
        labels = pod["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "mpesa-gateway"
        assert labels["app.kubernetes.io/instance"] == RELEASE
        assert labels["app.kubernetes.io/component"] == name
    for kind in ("Deployment", "StatefulSet"):
        for workload in of(objects, kind):
            selector = workload["spec"]["selector"]["matchLabels"]
            assert selector == {
                "app.kubernetes.io/name": "mpesa-gateway",
                "app.kubernetes.io/instance": RELEASE,
                "app.kubernetes.io/component": component(workload),
            }


@every_set
def test_a_new_version_of_the_chart_alone_restarts_nothing(values: Path) -> None:
    for name, pod in pod_templates(render(values)).items():
        if name != "test":
            labels = pod["metadata"]["labels"]
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels), name


def test_the_api_service_listens_on_80() -> None:
    service = only(render(TRIAL), "Service", "api")
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert service["spec"]["selector"]["app.kubernetes.io/component"] == "api"


@pytest.mark.parametrize("name", ["api", "worker", "operator"])
def test_metrics_are_on_9090(name: str) -> None:
    container = main_container(render(TRIAL), name)
    assert {"name": "metrics", "containerPort": 9090} in container["ports"]
    assert environment(container)["MPESA_METRICS_PORT"] == "9090"


def test_probes_ask_what_they_should() -> None:
    objects = render(TRIAL)
    asked = {
        (name, probe): main_container(objects, name)[probe]["httpGet"]
        for name, probe in [
            ("api", "startupProbe"),
            ("api", "livenessProbe"),
            ("api", "readinessProbe"),
            ("worker", "livenessProbe"),
            ("operator", "livenessProbe"),
        ]
    }
    assert asked == {
        ("api", "startupProbe"): {"path": "/livez", "port": "http"},
        ("api", "livenessProbe"): {"path": "/livez", "port": "metrics"},
        ("api", "readinessProbe"): {"path": "/readyz", "port": "http"},
        ("worker", "livenessProbe"): {"path": "/livez", "port": "metrics"},
        ("operator", "livenessProbe"): {"path": "/healthz", "port": "health"},
    }


def test_pods_leave_without_dropping_requests() -> None:
    objects = render(TRIAL)
    api = main_container(objects, "api")
    assert api["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    pods = pod_templates(objects)
    assert pods["api"]["spec"]["terminationGracePeriodSeconds"] == 45
    assert pods["worker"]["spec"]["terminationGracePeriodSeconds"] == 90
    for name in ("api", "worker"):
        strategy = only(objects, "Deployment", name)["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert only(objects, "Deployment", "operator")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("name", ["api", "worker"])
def test_pods_wait_for_the_schema(name: str) -> None:
    waiting = pod_templates(render(TRIAL))[name]["spec"]["initContainers"][0]
    assert waiting["args"][:2] == ["migrate", "--wait"]
    assert set(environment(waiting)) == {
        "MPESA_DATABASE_URL",
        "MPESA_LOG_FORMAT",
        "MPESA_LOG_LEVEL",
    }


@pytest.mark.parametrize("name", ["api", "worker"])
def test_merchant_files_are_a_directory_of_every_shard(name: str) -> None:
    spec = pod_templates(render({"operator": {"shards": 3}}))[name]["spec"]
    volume = next(it for it in spec["volumes"] if it["name"] == "merchants")
    assert volume["projected"]["sources"] == [
        {"secret": {"name": f"g-mpesa-gateway-merchants-{shard}", "optional": True}}
        for shard in range(3)
    ]
    mount = next(it for it in spec["containers"][0]["volumeMounts"] if it["name"] == "merchants")
    # With a subPath the kubelet would never refresh it.
    assert mount == {
        "name": "merchants",
        "mountPath": "/etc/mpesa-gateway/merchants",
        "readOnly": True,
    }


def test_every_role_is_one_image_by_tag_or_digest() -> None:
    digest = "sha256:" + "a" * 64
    for image, wanted in [
        ({"repository": "r.example/g", "tag": "7"}, "r.example/g:7"),
        ({"repository": "r.example/g", "tag": "7", "digest": digest}, f"r.example/g@{digest}"),
    ]:
        pods = pod_templates(render({**TRIAL, "image": image}))
        for name in OURS:
            for container in containers(pods[name]):
                assert container["image"] == wanted
                assert container["imagePullPolicy"] == "IfNotPresent"


def test_pods_start_again_when_a_secret_of_the_chart_changes() -> None:
    with_own = {"auth": {"existingSecret": "mine"}, "simulator": {"enabled": True}}
    annotations = pod_templates(render(TRIAL))["api"]["metadata"]["annotations"]
    assert set(annotations) == {
        "checksum/app",
        "checksum/postgresql",
        "checksum/redis",
        "checksum/simulator",
    }
    assert "checksum/app" not in pod_templates(render(with_own))["api"]["metadata"]["annotations"]


def test_every_extra_lands_in_the_pod() -> None:
    objects = render(next(path for path in VALUE_SETS if path.stem == "namespaced-values"))
    pod = pod_templates(objects)["api"]
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert environment(container)["MPESA_DB_MAX_CONNS"] == "5"
    assert {"name": "ca", "mountPath": "/etc/company-ca"} in container["volumeMounts"]
    assert {"name": "ca", "configMap": {"name": "company-ca"}} in spec["volumes"]
    assert spec["containers"][1]["image"] == container["image"]
    assert [it["name"] for it in spec["initContainers"]] == ["wait-for-schema", "first"]
    assert pod["metadata"]["annotations"]["example.com/note"] == "api"
    assert pod["metadata"]["labels"]["example.com/tier"] == "edge"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["tolerations"] == [{"key": "payments", "operator": "Exists"}]
    assert "nodeAffinity" in spec["affinity"]
    assert "g-company-ca" in {it["metadata"]["name"] for it in of(objects, "ConfigMap")}


def test_an_extra_variable_replaces_the_charts_own() -> None:
    extra = [{"name": "MPESA_LOG_LEVEL", "value": "debug"}]
    container = main_container(render({"operator": {"extraEnv": extra}}), "operator")
    assert environment(container)["MPESA_LOG_LEVEL"] == "debug"


def test_the_api_keeps_a_spool_where_it_is_asked_for() -> None:
    """An `emptyDir` outlives a container that is restarted."""
    objects = render({"api": {"spool": {"enabled": True}}, **TRIAL})
    container = main_container(objects, "api")
    assert environment(container)["MPESA_SPOOL_DIR"] == "/var/spool/mpesa-gateway"
    (mount,) = (it for it in container["volumeMounts"] if it["name"] == "spool")
    assert mount["mountPath"] == "/var/spool/mpesa-gateway"
    volumes = pod_templates(objects)["api"]["spec"]["volumes"]
    (volume,) = (it for it in volumes if it["name"] == "spool")
    assert volume["emptyDir"] == {"sizeLimit": "64Mi"}

    plain = render(TRIAL)
    assert "MPESA_SPOOL_DIR" not in environment(main_container(plain, "api"))
    volumes = pod_templates(plain)["api"]["spec"]["volumes"]
    assert "spool" not in {it["name"] for it in volumes}


def test_an_uninstall_lets_go_of_merchantconfigs_first() -> None:
    job = only(render({}), "Job", "release")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    container = main_container(render({}), "release")
    assert container["args"] == ["operator", "--release"]
    assert environment(container) == environment(main_container(render({}), "operator"))
    kept = render({"operator": {"releaseOnUninstall": False}})
    assert "release" not in pod_templates(kept)

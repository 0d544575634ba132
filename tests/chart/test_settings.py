"""The chart and the gateway's settings: the same names, every one within reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.helm import (
    CHART,
    FULLNAME,
    NAMESPACE,
    VALUE_SETS,
    containers,
    environment,
    main_container,
    pod_templates,
    render,
)
from mpesa_gateway.config import Config
from mpesa_gateway.config.settings import PREFIX, SETTINGS
from mpesa_operator.settings import VARIABLES, read_settings

SETTING_NAMES = {PREFIX + setting.name for setting in SETTINGS}
ELSEWHERE = ("MPESA_OPERATOR_", "MPESA_SIMULATOR_")
TRIAL = {"simulator": {"enabled": True}}


def api_environment(values: dict[str, Any] | Path) -> dict[str, Any]:
    return environment(main_container(render(values), "api"))


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_every_variable_exists(values: Path) -> None:
    for pod in pod_templates(render(values)).values():
        for container in [it for it in containers(pod) if "env" in it]:
            ours = {name for name in environment(container) if name.startswith(PREFIX)}
            assert {it for it in ours if not it.startswith(ELSEWHERE)} <= SETTING_NAMES


def test_every_setting_has_a_value_or_is_set() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    by_name = set(schema["properties"]["settings"]["propertyNames"]["enum"])
    # SERVER_PORT and METRICS_PORT are the Service's and the probes' business; nobody arms
    # failpoints in a cluster; a spool needs a volume (`api.spool`).
    elsewhere = {"MPESA_FAILPOINTS", "MPESA_SPOOL_DIR"}
    assert set(api_environment(TRIAL)) | by_name == SETTING_NAMES - elsewhere
    assert not set(api_environment(TRIAL)) & by_name


def test_api_and_worker_have_the_same_settings() -> None:
    for values in (TRIAL, {"settings": {"MPESA_LEASE": "20s"}}):
        objects = render(values)
        api, worker = (environment(main_container(objects, it)) for it in ("api", "worker"))
        assert api == worker


def test_a_setting_reaches_the_pods_as_text() -> None:
    settings = {"MPESA_SAFARICOM_PUSH_PER_MINUTE": 1_000_000, "MPESA_CALLBACK_TOKEN_REQUIRED": True}
    found = api_environment({"settings": settings})
    assert found["MPESA_SAFARICOM_PUSH_PER_MINUTE"] == "1000000"
    assert found["MPESA_CALLBACK_TOKEN_REQUIRED"] == "true"


SECRETS = {
    "MPESA_DATABASE_URL": "postgresql://mpesa:p@db/m",
    "MPESA_REDIS_URL": "redis://redis/0",
    "MPESA_INTERNAL_SECRET": "k" * 43,
    "MPESA_WEBHOOK_SECRET": "whsec_" + "YWJj" * 11,
    "MPESA_SAFARICOM_CONSUMER_KEY": "key",
    "MPESA_SAFARICOM_CONSUMER_SECRET": "secret",
    "MPESA_SAFARICOM_PASSKEY": "passkey",
    "MPESA_SAFARICOM_SHORT_CODE": "174379",
}


def resolved(found: dict[str, Any]) -> dict[str, str]:
    """As the kubelet would: an optional key that is not there is no variable."""
    values = {name: SECRETS.get(name, it) for name, it in found.items()}
    return {name: it for name, it in values.items() if isinstance(it, str)}


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_the_gateway_accepts_its_environment(values: Path) -> None:
    found = resolved(api_environment(values))
    config = Config.from_env({**found, "MPESA_MERCHANTS_DIR": "/"})
    has_default = "MPESA_INTERNAL_SECRET" in found
    assert (config.default_merchant is not None) is has_default


def test_without_a_daraja_secret_there_is_no_default_merchant() -> None:
    found = api_environment({})
    assert not {name for name in SECRETS if name.startswith("MPESA_SAFARICOM_")} & set(found)
    assert "MPESA_INTERNAL_SECRET" not in found
    assert Config.from_env(resolved(found)).default_merchant is None


def test_the_trial_talks_to_the_simulator_inside_the_cluster() -> None:
    found = api_environment(TRIAL)
    assert found["MPESA_SAFARICOM_BASE_URL"] == (
        f"http://{FULLNAME}-simulator.{NAMESPACE}.svc:8080"
    )
    assert found["MPESA_SAFARICOM_CALLBACK_URL"] == (
        f"http://{FULLNAME}-api.{NAMESPACE}.svc/callback"
    )
    assert found["MPESA_WEBHOOK_ALLOW_PRIVATE"] == "true"


@pytest.mark.parametrize(
    ("values", "base_url"),
    [
        ({}, "https://sandbox.safaricom.co.ke"),
        ({"safaricom": {"baseUrl": "http://daraja.example"}, **TRIAL}, "http://daraja.example"),
        (
            {
                "environment": "production",
                "safaricom": {"allowedCIDRs": ["1.1.1.1"], "callbackUrl": "https://p.example/c"},
            },
            "https://api.safaricom.co.ke",
        ),
    ],
)
def test_safaricoms_address(values: dict[str, Any], base_url: str) -> None:
    assert api_environment(values)["MPESA_SAFARICOM_BASE_URL"] == base_url


def test_private_webhooks_are_the_simulators_alone() -> None:
    assert api_environment({})["MPESA_WEBHOOK_ALLOW_PRIVATE"] == "false"
    closed = {**TRIAL, "webhooks": {"allowPrivate": False}}
    assert api_environment(closed)["MPESA_WEBHOOK_ALLOW_PRIVATE"] == "false"


def test_external_stores_by_their_secrets() -> None:
    values = {
        "postgresql": {"enabled": False},
        "externalDatabase": {"existingSecret": "gateway-db-app"},
        "redis": {"enabled": False},
        "externalRedis": {"existingSecret": "gateway-redis"},
    }
    found = api_environment(values)
    database = {"secretKeyRef": {"name": "gateway-db-app", "key": "uri"}}
    assert found["MPESA_DATABASE_URL"] == database
    assert found["MPESA_REDIS_URL"] == {"secretKeyRef": {"name": "gateway-redis", "key": "uri"}}
    assert not {"postgresql", "redis"} & set(pod_templates(render(values)))


def test_the_operators_environment_is_the_agreed_one() -> None:
    values = {
        "operator": {
            "watchNamespaces": ["shop", "books"],
            "drainSeconds": 60,
            "secretWatch": {"enabled": True},
            "rotationOverlap": "12h",
            "resyncInterval": "30s",
            "shards": 2,
        }
    }
    found = environment(main_container(render(values), "operator"))
    assert set(found) == {PREFIX + name for name, _, _ in VARIABLES}
    given = {name: it for name, it in found.items() if isinstance(it, str)}
    assert read_settings(given).watch_namespaces == ("shop", "books")
    assert found["MPESA_OPERATOR_GATEWAY"] == "default"
    assert found["MPESA_OPERATOR_FULLNAME"] == FULLNAME
    assert found["MPESA_OPERATOR_WATCH_NAMESPACES"] == "shop,books"
    assert found["MPESA_OPERATOR_DRAIN"] == "60s"
    assert found["MPESA_OPERATOR_SECRET_WATCH"] == "true"
    assert found["MPESA_OPERATOR_ROTATION_OVERLAP"] == "12h"
    assert found["MPESA_OPERATOR_RESYNC"] == "30s"
    assert found["MPESA_OPERATOR_SHARDS"] == "2"
    api = api_environment(values)
    for name in set(found) & set(api):
        assert found[name] == api[name], "both planes must agree"


@pytest.mark.parametrize("name", ["api", "worker"])
def test_a_ca_for_postgres_reaches_whoever_connects(name: str) -> None:
    mount = {"name": "ca", "mountPath": "/etc/ca"}
    values = {
        "migrations": {
            "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "extraVolumeMounts": [mount],
        },
        name: {"extraVolumeMounts": [mount]},
    }
    pods = pod_templates(render(values))
    for pod in (pods[name], pods["migrate"]):
        assert [it["name"] for it in pod["spec"]["volumes"]].count("ca") == 1
        assert all(mount in container["volumeMounts"] for container in containers(pod))

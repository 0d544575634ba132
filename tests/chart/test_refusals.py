"""Values that cannot work are refused before anything is installed, in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from harness.helm import helm_template, refusal, rendered_text
from mpesa_gateway.domain.endpoint import LOCAL_SUFFIXES
from mpesa_gateway.domain.production import (
    REFUSED_WORDS,
    TUNNEL_DOMAINS,
    TUNNEL_WORDS,
    find_callback_url_problem,
    moves_real_money,
)

LIVE: dict[str, Any] = {
    "environment": "production",
    "safaricom": {
        "allowedCIDRs": ["196.201.214.0/24"],
        "callbackUrl": "https://pay.example.com/callback",
    },
}
REAL = "https://api.safaricom.co.ke"
EXTERNAL_DATABASE = {"externalDatabase": {"existingSecret": "db"}}
EXTERNAL_REDIS = {"externalRedis": {"existingSecret": "redis"}}
BOTH = {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}
WALLED = {"allowedCIDRs": ["196.201.214.0/24"], "callbackUrl": "https://pay.example.com/callback"}
ROUTE = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}}
INGRESS = {"ingress": {"enabled": True, "hosts": ["pay.example.com"]}}
BUDGET = {"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}}


def live(**safaricom: Any) -> dict[str, Any]:
    return {**LIVE, "safaricom": {**LIVE["safaricom"], **safaricom}}


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "an allowlist behind a Gateway that is not trusted": (
        {"safaricom": WALLED, "exposure": {"public": ROUTE}},
        "api.trustedProxies is empty behind a proxy with an allowlist:",
    ),
    "an allowlist behind an Ingress that is not trusted": (
        {"safaricom": WALLED, "exposure": {"public": INGRESS}},
        "api.trustedProxies is empty behind a proxy with an allowlist:",
    ),
    "callbacks through the internal Ingress": (
        {"safaricom": WALLED, "exposure": {"internal": INGRESS}},
        "api.trustedProxies is empty behind a proxy with an allowlist:",
    ),
    "no proxy, and one": (
        {"api": {"trustedProxies": ["none", "10.244.7.0/28"]}},
        "api.trustedProxies has none and addresses:",
    ),
    "nodes that call in Safaricom's place": (
        {
            "safaricom": WALLED,
            "api": {"service": {"type": "NodePort", "externalTrafficPolicy": "Cluster"}},
        },
        "api.service.externalTrafficPolicy is Cluster with an allowlist:",
    ),
    "a pre-stop wait that eats the grace period": (
        {"api": {"preStopSeconds": 14}},
        "api.preStopSeconds is 14 with a grace period of 45:",
    ),
    "secrets that a renderer would make anew": (
        {"requireExistingSecrets": True, "redis": {"existingSecret": "r"}},
        "requireExistingSecrets is true, and a Secret would be generated: set auth.existingSecret,",
    ),
    "bundled and external Postgres": (
        EXTERNAL_DATABASE,
        "externalDatabase.existingSecret is set while the bundled Postgres is enabled:",
    ),
    "bundled and external Redis": (
        EXTERNAL_REDIS,
        "externalRedis.existingSecret is set while the bundled Redis is enabled:",
    ),
    "no Postgres": ({"postgresql": {"enabled": False}}, "There is no Postgres:"),
    "no Redis": ({"redis": {"enabled": False}}, "There is no Redis:"),
    "two monitors": (
        {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        "metrics.serviceMonitor and metrics.podMonitor are both enabled:",
    ),
    "two autoscalers": (
        {"worker": BOTH},
        "worker.autoscaling and worker.keda are both enabled:",
    ),
    "two budgets of the API": ({"api": BUDGET}, "api.podDisruptionBudget has minAvailable and"),
    "two budgets of the worker": ({"worker": BUDGET}, "worker.podDisruptionBudget has"),
    "autoscaling upside down": (
        {"api": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}},
        "api.autoscaling.minReplicas is above maxReplicas.",
    ),
    "KEDA upside down": (
        {"worker": {"keda": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}},
        "worker.keda.minReplicas is above maxReplicas.",
    ),
    "a route without a Gateway": (
        {"exposure": {"public": {"httpRoute": {"enabled": True}}}},
        "exposure.public.httpRoute.parentRefs is empty:",
    ),
    "an Ingress without a host": (
        {"exposure": {"internal": {"ingress": {"enabled": True}}}},
        "exposure.internal.ingress.hosts is empty:",
    ),
    "production open to everybody": (
        live(allowedCIDRs=[]),
        "safaricom.allowedCIDRs is empty in production:",
    ),
    "production open to everybody in words": (
        live(allowedCIDRs=["0.0.0.0/0"]),
        "safaricom.allowedCIDRs is too wide in production:",
    ),
    "production open to half of everybody": (
        live(allowedCIDRs=["196.201.214.0/24", "128.0.0.0/1"]),
        "safaricom.allowedCIDRs is too wide in production:",
    ),
    "production that trusts half of everybody": (
        {**LIVE, "api": {"trustedProxies": ["8000::/1"]}},
        "api.trustedProxies is too wide in production:",
    ),
    "real money under sandbox rules": (
        {**LIVE, "environment": "sandbox", "safaricom": {**LIVE["safaricom"], "baseUrl": REAL}},
        "safaricom.baseUrl leads to real money while environment is sandbox:",
    ),
    "production with the simulator": (
        {**LIVE, "simulator": {"enabled": True}},
        "simulator.enabled is true in production:",
    ),
    "production without a callback URL": (
        live(callbackUrl=""),
        "safaricom.callbackUrl is empty in production:",
    ),
    "production called back in the clear": (
        live(callbackUrl="http://pay.example.com/callback"),
        "safaricom.callbackUrl is not https in production:",
    ),
    "production in the clear": (
        live(baseUrl="http://api.example.com"),
        "safaricom.baseUrl is not https in production:",
    ),
    "production with private webhooks": (
        {**LIVE, "webhooks": {"allowPrivate": True}},
        "webhooks.allowPrivate is true in production:",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_it_is_refused_in_a_sentence(name: str) -> None:
    values, sentence = REFUSALS[name]
    problem = refusal(values)
    assert f"  - {sentence}" in problem
    assert problem.count("\n  - ") == 1, "one problem, one sentence"


@pytest.mark.parametrize(
    "url",
    [
        REAL,
        "https://API.safaricom.co.ke./x",
        "https://sandbox.safaricom.co.ke",
        "https://SANDBOX.safaricom.co.ke.:443",
        "https://sandbox.safaricom.co.ke@api.safaricom.co.ke",
        "https://proxy.example.com",
        "https://196.201.214.200",
        "https://10.0.0.7.example.com",
        "http://10.0.0.7:8080",
        "http://172.31.0.1",
        "http://172.32.0.1",
        "http://100.64.0.1",
        "http://[::1]:8080",
        "http://[fd00::1]",
        "http://[2a00:1450::1]",
        "http://simulator:8080",
        "http://2130706433",
        *(f"http://daraja.{suffix}" for suffix in (*LOCAL_SUFFIXES, "example")),
    ],
)
def test_the_chart_knows_real_money_as_the_gateway_does(url: str) -> None:
    values = {"safaricom": {"baseUrl": url}}
    complains = "leads to real money" in helm_template(values).stderr

    assert complains is moves_real_money(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://pay.example.com/callback",
        f"https://pay.example.com/{'-'.join(REFUSED_WORDS)}/x",
        f"https://abc.{TUNNEL_DOMAINS[-1]}/x",
        f"https://my-{TUNNEL_WORDS[-1]}.example.com/x",
    ],
)
def test_the_chart_refuses_a_callback_url_as_the_gateway_does(url: str) -> None:
    said = helm_template(live(callbackUrl=url)).stderr
    problem = find_callback_url_problem(url)

    assert ("safaricom.callbackUrl" in said) is (problem is not None)
    assert (problem or "").split(":")[0] in said


def test_every_problem_is_told_at_once() -> None:
    problem = refusal({**EXTERNAL_DATABASE, **EXTERNAL_REDIS, "worker": BOTH})
    assert problem.count("\n  - ") == 3


def test_production_that_is_whole_renders() -> None:
    assert "MPESA_ENVIRONMENT" in rendered_text(LIVE)


def test_an_unknown_environment_is_refused_without_the_schema_too() -> None:
    assert "environment" in refusal({"environment": "staging"})
    problem = refusal({"environment": "staging"}, "--skip-schema-validation")
    assert 'environment is "staging": it must be sandbox or production.' in problem


def test_a_kubernetes_that_is_too_old_is_refused() -> None:
    assert "requires kubeVersion: >=1.31.0-0" in refusal({}, "--kube-version", "1.30.9")


WRONG: dict[str, dict[str, Any]] = {
    "a misspelt value": {"api": {"replicas": 3}},
    "a misspelt section": {"postgres": {"enabled": False}},
    "a misspelt setting": {"settings": {"MPESA_QUERY_SCHEDUL": "1m"}},
    "a setting that the chart sets": {"settings": {"MPESA_ENVIRONMENT": "production"}},
    "a secret among the settings": {"settings": {"MPESA_INTERNAL_SECRET": "x"}},
    "text for a number": {"api": {"replicaCount": "two"}},
    "a negative number": {"worker": {"replicaCount": -1}},
    "text for a switch": {"simulator": {"enabled": "yes"}},
    "one namespace for a list": {"operator": {"watchNamespaces": "shop"}},
    "something that is no duration": {"operator": {"rotationOverlap": "a day"}},
    "a URL without a scheme": {"safaricom": {"callbackUrl": "pay.example.com"}},
    "a digest that is none": {"image": {"digest": "latest"}},
    "a variable without a name": {"api": {"extraEnv": [{"value": "x"}]}},
    "a number for a variable": {"api": {"extraEnv": [{"name": "A", "value": 1}]}},
    "an image as a map": {"postgresql": {"image": {"repository": "postgres"}}},
    "a pull policy that is none": {"image": {"pullPolicy": "Sometimes"}},
    "a size that is none": {"postgresql": {"persistence": {"size": "big"}}},
}


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses(name: str) -> None:
    assert "values don't meet the specifications of the schema" in refusal(WRONG[name])

"""Values that cannot work are refused before anything is installed, in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from harness.helm import refusal, rendered_text

LIVE: dict[str, Any] = {
    "environment": "production",
    "safaricom": {
        "allowedCIDRs": ["196.201.214.0/24"],
        "callbackUrl": "https://pay.example.com/callback",
    },
}
EXTERNAL_DATABASE = {"externalDatabase": {"existingSecret": "db"}}
EXTERNAL_REDIS = {"externalRedis": {"existingSecret": "redis"}}
BOTH = {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}
BUDGET = {"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}}


def live(**safaricom: Any) -> dict[str, Any]:
    return {**LIVE, "safaricom": {**LIVE["safaricom"], **safaricom}}


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
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
        "safaricom.allowedCIDRs has 0.0.0.0/0 in production:",
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

"""The operator's environment: defaults, and every problem at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mpesa_gateway.errors import ConfigError
from mpesa_operator.settings import PRODUCTION_URL, SANDBOX_URL, VARIABLES, read_settings

NEEDED = {
    "MPESA_OPERATOR_NAMESPACE": "gateway",
    "MPESA_OPERATOR_INSTANCE": "g",
    "MPESA_OPERATOR_FULLNAME": "g-mpesa-gateway",
}


def test_the_defaults() -> None:
    settings = read_settings(NEEDED)
    assert settings.secret_name(0) == "g-mpesa-gateway-merchants-0"
    assert settings.allowlist_name == "g-mpesa-gateway-callback-allowlist"
    assert settings.list_namespaces == ("*",)
    assert settings.watches("anything")
    assert not settings.secret_watch
    assert (settings.health_port, settings.metrics_port) == (8081, 9090)
    assert settings.base_url == SANDBOX_URL
    platform = settings.platform
    assert platform.environment == "sandbox"
    assert platform.drain == timedelta(seconds=300)
    assert platform.rotation_overlap == timedelta(hours=24)
    assert platform.resync == timedelta(seconds=60)
    assert platform.shards == 1
    assert settings.labels["app.kubernetes.io/instance"] == "g"


def test_everything_set() -> None:
    settings = read_settings(
        {
            **NEEDED,
            "MPESA_OPERATOR_WATCH_NAMESPACES": "shops, kiosks,",
            "MPESA_OPERATOR_DRAIN": "1m",
            "MPESA_OPERATOR_SECRET_WATCH": "true",
            "MPESA_OPERATOR_SHARDS": "4",
            "MPESA_SAFARICOM_IPS": "196.201.212.0/22",
            "MPESA_SAFARICOM_CALLBACK_URL": "https://pay.example/callback/",
            "MPESA_WEBHOOK_ALLOW_PRIVATE": "True",
        }
    )
    assert settings.watch_namespaces == settings.list_namespaces == ("shops", "kiosks")
    assert settings.watches("shops")
    assert not settings.watches("other")
    assert settings.secret_watch
    platform = settings.platform
    assert (platform.drain, platform.shards) == (timedelta(minutes=1), 4)
    assert [str(net) for net in platform.networks] == ["196.201.212.0/22"]
    assert platform.callback_url == "https://pay.example/callback"
    assert platform.allow_private_webhooks


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("", "sandbox", SANDBOX_URL),
        ("", "production", PRODUCTION_URL),
        (SANDBOX_URL, "production", PRODUCTION_URL),
        ("http://simulator:8080/", "sandbox", "http://simulator:8080"),
        ("https://gateway.example", "production", "https://gateway.example"),
    ],
)
def test_daraja_is_where_the_pods_look_for_it(url: str, environment: str, expected: str) -> None:
    env = {**NEEDED, "MPESA_SAFARICOM_BASE_URL": url, "MPESA_ENVIRONMENT": environment}
    assert read_settings(env).base_url == expected


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        read_settings(
            {
                "MPESA_OPERATOR_NAMESPACE": "gateway",
                "MPESA_OPERATOR_DRAIN": "5 minutes",
                "MPESA_OPERATOR_RESYNC": "0s",
                "MPESA_OPERATOR_SECRET_WATCH": "maybe",
                "MPESA_OPERATOR_SHARDS": "0",
                "MPESA_METRICS_PORT": "99999",
                "MPESA_ENVIRONMENT": "test",
                "MPESA_SAFARICOM_IPS": "everyone",
            }
        )
    assert {problem.split(" ", 1)[0] for problem in refusal.value.problems} == {
        "MPESA_OPERATOR_INSTANCE",
        "MPESA_OPERATOR_FULLNAME",
        "MPESA_OPERATOR_DRAIN",
        "MPESA_OPERATOR_RESYNC",
        "MPESA_OPERATOR_SECRET_WATCH",
        "MPESA_OPERATOR_SHARDS",
        "MPESA_METRICS_PORT",
        "MPESA_ENVIRONMENT",
        "MPESA_SAFARICOM_IPS",
    }


def test_each_variable_is_read_once() -> None:
    names = [name for name, _, _ in VARIABLES]
    assert len(names) == len(set(names))

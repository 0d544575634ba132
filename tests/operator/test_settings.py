"""The operator's environment: defaults, and every problem at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from harness.collecting import every_case
from mpesa_gateway.domain.production import PRODUCTION_URL, SANDBOX_URL
from mpesa_gateway.errors import ConfigError
from mpesa_operator.settings import VARIABLES, read_settings

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
    assert settings.gateway == "default"


@pytest.mark.parametrize(
    ("address", "host"),
    [("10.244.7.3", "0.0.0.0"), ("fd00::7", "::")],  # noqa: S104 - what it listens on
)
def test_it_listens_in_the_family_of_its_pod(address: str, host: str) -> None:
    assert read_settings({**NEEDED, "MPESA_OPERATOR_POD_IP": address}).host == host


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


@every_case(
    ("url", "environment", "expected"),
    [
        ("", "sandbox", SANDBOX_URL),
        ("", "production", PRODUCTION_URL),
        ("http://simulator:8080/", "sandbox", "http://simulator:8080"),
        ("https://gateway.example", "production", "https://gateway.example"),
    ],
)
def test_daraja_is_where_the_pods_look_for_it(url: str, environment: str, expected: str) -> None:
    env = {**NEEDED, "MPESA_SAFARICOM_BASE_URL": url, "MPESA_ENVIRONMENT": environment}
    assert read_settings(env).base_url == expected


@pytest.mark.parametrize(
    ("url", "environment", "sentence"),
    [
        (PRODUCTION_URL, "sandbox", "MPESA_ENVIRONMENT must be production"),
        ("https://API.safaricom.co.ke./", "sandbox", "MPESA_ENVIRONMENT must be production"),
        ("https://daraja.example.com", "sandbox", "MPESA_ENVIRONMENT must be production"),
        ("http://api.safaricom.co.ke", "production", "MPESA_SAFARICOM_BASE_URL is not https"),
        (SANDBOX_URL, "production", "MPESA_SAFARICOM_BASE_URL is the sandbox"),
    ],
)
def test_real_money_needs_production(url: str, environment: str, sentence: str) -> None:
    env = {**NEEDED, "MPESA_SAFARICOM_BASE_URL": url, "MPESA_ENVIRONMENT": environment}
    with pytest.raises(ConfigError, match=sentence):
        read_settings(env)


@every_case(
    ("setting", "value"),
    [
        ("SAFARICOM_IPS", "0.0.0.0/1,128.0.0.0/1"),
        ("SAFARICOM_IPS", ",".join(f"{2 * it}.0.0.0/8" for it in range(1, 40))),
        ("SAFARICOM_IPS", "::ffff:0:0/96"),
        ("SAFARICOM_IPS", "2c00::/12"),
        ("SAFARICOM_CALLBACK_URL", "http://pay.example.com/callback"),
        ("SAFARICOM_CALLBACK_URL", "https://10.0.0.7/callback"),
        ("SAFARICOM_CALLBACK_URL", "https://mpesa.example.com/callback"),
    ],
)
def test_production_refuses_what_its_pods_refuse(setting: str, value: str) -> None:
    unsafe = {**NEEDED, f"MPESA_{setting}": value}
    assert read_settings(unsafe).platform.environment == "sandbox"
    with pytest.raises(ConfigError, match=setting):
        read_settings({**unsafe, "MPESA_ENVIRONMENT": "production"})


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

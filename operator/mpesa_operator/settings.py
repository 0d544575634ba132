"""The operator's settings: read once from the environment, every problem at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mpesa_gateway.domain.duration import parse_duration
from mpesa_gateway.domain.merchant import parse_networks
from mpesa_gateway.domain.production import (
    PRODUCTION_URL,
    SANDBOX_URL,
    find_callback_url_problem,
    is_sandbox,
    is_too_wide,
    moves_real_money,
)
from mpesa_gateway.errors import ConfigError
from mpesa_operator.namespaces import Selector, check_selector
from mpesa_operator.platform_settings import DEFAULT_GATEWAY, Platform


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the operator is told when it starts."""

    namespace: str
    instance: str
    fullname: str
    gateway: str
    name: str
    watch_namespaces: tuple[str, ...]
    namespace_selector: Selector
    secret_watch: bool
    host: str
    health_port: int
    metrics_port: int
    base_url: str
    log_format: str
    log_level: str
    platform: Platform

    def watches(self, namespace: str) -> bool:
        """Whether MerchantConfigs of that namespace are seen."""
        return not self.watch_namespaces or namespace in self.watch_namespaces

    @property
    def list_namespaces(self) -> tuple[str, ...]:
        """What to list; `*` is every namespace."""
        return self.watch_namespaces or ("*",)

    def secret_name(self, shard: int) -> str:
        """The bundle Secret of a shard."""
        return f"{self.fullname}-merchants-{shard}"

    @property
    def seal_name(self) -> str:
        """The Secret with the operator's own secret."""
        return f"{self.fullname}-operator-seal"

    @property
    def allowlist_name(self) -> str:
        """The ConfigMap that shows who may call back."""
        return f"{self.fullname}-callback-allowlist"

    @property
    def release_labels(self) -> dict[str, str]:
        """Labels of everything that the chart made for this gateway."""
        return {
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/instance": self.instance,
        }

    @property
    def labels(self) -> dict[str, str]:
        """Labels of what the operator makes in the gateway's namespace."""
        return {
            **self.release_labels,
            "app.kubernetes.io/component": "operator",
            "app.kubernetes.io/managed-by": "mpesa-operator",
        }


def _text(value: str) -> str:
    if not value:
        raise ValueError("is required and not set")
    return value


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _boolean(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{value!r} is neither true nor false")
    return value.lower() == "true"


def _port(value: str) -> int:
    return _whole(value, 0, 65535)


def _every_address(pod_ip: str) -> str:
    """Every address of the pod's own family: kubelet and Prometheus use its primary address."""
    return "::" if ":" in pod_ip else "0.0.0.0"  # noqa: S104 - probes come from outside


def _shards(value: str) -> int:
    return _whole(value, 1, 64)


def _many(value: str) -> int:
    return _whole(value, 0, 5000)


def _selector(value: str) -> Selector:
    try:
        document = json.loads(value)
    except ValueError:
        raise ValueError("is no label selector as JSON") from None
    return check_selector(document)


def _whole(value: str, low: int, high: int) -> int:
    if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return int(value)


def _some_time(value: str) -> timedelta:
    duration = parse_duration(value)
    if duration <= timedelta(0):
        raise ValueError("must be longer than zero")
    return duration


def _networks(value: str) -> Any:
    return parse_networks(list(_listed(value)))


def _environment(value: str) -> str:
    if value.lower() not in ("sandbox", "production"):
        raise ValueError(f"{value!r} is neither sandbox nor production")
    return value.lower()


# Variable without its prefix, default, parser. docs/merchants.md says what they mean.
VARIABLES: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("OPERATOR_NAMESPACE", "", _text),
    ("OPERATOR_INSTANCE", "", _text),
    ("OPERATOR_FULLNAME", "", _text),
    ("OPERATOR_NAME", "mpesa-gateway", _text),
    ("OPERATOR_GATEWAY", DEFAULT_GATEWAY, _text),
    ("OPERATOR_WATCH_NAMESPACES", "", _listed),
    ("OPERATOR_NAMESPACE_SELECTOR", "{}", _selector),
    ("OPERATOR_MAX_MERCHANTS_PER_NAMESPACE", "0", _many),
    ("OPERATOR_DRAIN", "300s", parse_duration),
    ("OPERATOR_SECRET_WATCH", "false", _boolean),
    ("OPERATOR_ROTATION_OVERLAP", "24h", parse_duration),
    ("OPERATOR_RESYNC", "60s", _some_time),
    ("OPERATOR_SHARDS", "1", _shards),
    ("OPERATOR_POD_IP", "", _every_address),
    ("OPERATOR_HEALTH_PORT", "8081", _port),
    ("ENVIRONMENT", "sandbox", _environment),
    ("SAFARICOM_BASE_URL", "", str),
    ("SAFARICOM_IPS", "", _networks),
    ("SAFARICOM_CALLBACK_URL", "", str),
    ("WEBHOOK_ALLOW_PRIVATE", "false", _boolean),
    ("METRICS_PORT", "9090", _port),
    ("LOG_FORMAT", "json", str),
    ("LOG_LEVEL", "info", str),
)

MEANINGS = {
    "OPERATOR_NAMESPACE": "the namespace of the gateway's pods",
    "OPERATOR_INSTANCE": "the Helm release's name",
    "OPERATOR_FULLNAME": "the name that the chart's objects begin with",
}


def read_settings(env: Mapping[str, str]) -> Settings:
    """The settings. Raises ConfigError with a sentence for every problem."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, default, parse in VARIABLES:
        try:
            values[name] = parse((env.get(f"MPESA_{name}") or default).strip())
        except ValueError as error:
            meaning = f": {MEANINGS[name]}" if name in MEANINGS and not env.get(name) else ""
            problems.append(f"MPESA_{name} {error}{meaning}")
    if not problems:
        problems = _production_problems(values)
    if problems:
        raise ConfigError(problems)
    return _settings(values)


def _production_problems(values: Mapping[str, Any]) -> list[str]:
    """Where the word and the money disagree, and what the gateway's own pods would refuse."""
    environment, url = values["ENVIRONMENT"], values["SAFARICOM_BASE_URL"]
    if environment == "sandbox":
        if url and moves_real_money(url):
            return [
                "MPESA_ENVIRONMENT must be production: MPESA_SAFARICOM_BASE_URL leads to real money"
            ]
        return []
    problems = []
    if url.startswith("http://"):
        problems.append(
            "MPESA_SAFARICOM_BASE_URL is not https: credentials would travel in the clear"
        )
    if is_sandbox(url):
        problems.append("MPESA_SAFARICOM_BASE_URL is the sandbox: its payments are not real money")
    if is_too_wide(values["SAFARICOM_IPS"]):
        problems.append(
            "MPESA_SAFARICOM_IPS lets too many addresses call back: together they cover more than"
            " a /8 (IPv6: /32)"
        )
    callback_url = values["SAFARICOM_CALLBACK_URL"]
    if callback_url and (why := find_callback_url_problem(callback_url)):
        problems.append(f"MPESA_SAFARICOM_CALLBACK_URL {why}")
    return problems


def _settings(values: Mapping[str, Any]) -> Settings:
    environment = values["ENVIRONMENT"]
    return Settings(
        namespace=values["OPERATOR_NAMESPACE"],
        instance=values["OPERATOR_INSTANCE"],
        fullname=values["OPERATOR_FULLNAME"],
        gateway=values["OPERATOR_GATEWAY"],
        name=values["OPERATOR_NAME"],
        watch_namespaces=values["OPERATOR_WATCH_NAMESPACES"],
        namespace_selector=values["OPERATOR_NAMESPACE_SELECTOR"],
        secret_watch=values["OPERATOR_SECRET_WATCH"],
        host=values["OPERATOR_POD_IP"],
        health_port=values["OPERATOR_HEALTH_PORT"],
        metrics_port=values["METRICS_PORT"],
        base_url=_base_url(values["SAFARICOM_BASE_URL"], environment),
        log_format=values["LOG_FORMAT"],
        log_level=values["LOG_LEVEL"],
        platform=Platform(
            environment=environment,
            networks=values["SAFARICOM_IPS"],
            callback_url=values["SAFARICOM_CALLBACK_URL"].rstrip("/"),
            allow_private_webhooks=values["WEBHOOK_ALLOW_PRIVATE"],
            drain=values["OPERATOR_DRAIN"],
            rotation_overlap=values["OPERATOR_ROTATION_OVERLAP"],
            resync=values["OPERATOR_RESYNC"],
            shards=values["OPERATOR_SHARDS"],
            max_merchants_per_namespace=values["OPERATOR_MAX_MERCHANTS_PER_NAMESPACE"],
        ),
    )


def _base_url(url: str, environment: str) -> str:
    """Where the pods send a merchant's credentials; an address set on purpose wins."""
    url = url.rstrip("/")
    if url and url not in (SANDBOX_URL, PRODUCTION_URL):
        return url
    return PRODUCTION_URL if environment == "production" else SANDBOX_URL

"""A whole gateway that has seen everything: what the dashboards are tested and pictured with.

Embedded Postgres and Redis, the simulator, the API, two workers and the operator, each a real
process with its own `/metrics`, and a real Prometheus that scrapes them every second.
"""

from __future__ import annotations

import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import requests

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.kubernetes import GROUP, PLURAL, VERSION, Json, KubernetesStub
from harness.merchants import write_file
from harness.processes import Processes, processes
from harness.prometheus import Prometheus
from harness.receiver import Answer, Receiver
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_devkit.processes import Process, clean_env, free_port
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)
from mpesa_operator.keys import API_KEY as API_KEY_FIELD

RELEASE = "g"
FULLNAME = f"{RELEASE}-mpesa-gateway"
GATEWAY, SHOPS = "gateway", "shops"
MERCHANT_NAMES = ("duka", "soko")
WORKERS = 2
# Of the slow endpoint: shorter than a webhook's deadline, long enough to be caught at it.
SLOW_S = 4.0
CONFIGS = f"/apis/{GROUP}/{VERSION}/namespaces/{SHOPS}/{PLURAL}"


def _encoded(values: dict[str, str]) -> dict[str, str]:
    return {name: b64encode(value.encode()).decode() for name, value in values.items()}


@dataclass
class Endpoints:
    """The merchants' servers. `flaky` fails every other time, `dead` has few webhooks to fail."""

    good: Receiver
    failing: Receiver
    gone: Receiver
    slow: Receiver
    flaky: Receiver
    dead: Receiver

    def misbehave(self) -> None:
        """Each in its way."""
        self.failing.default = self.dead.default = Answer(status=500)
        self.gone.default = Answer(status=410)
        self.slow.default = Answer(act=_slowly)
        self.flaky.answers = [Answer(status=503), Answer()] * 500


def _slowly(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(SLOW_S)
    handler.send_response(200)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@dataclass
class Stage:
    """Everything that runs."""

    directory: Path
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    simulator: RunningSimulator
    endpoints: Endpoints
    gateway: Processes
    kubernetes: KubernetesStub
    merchants_dir: Path
    port: int
    workers: list[Process]
    prometheus: Prometheus

    def key_of(self, merchant: str) -> str:
        """The API key that the operator has made for a merchant."""
        path = f"/api/v1/namespaces/{SHOPS}/secrets/{merchant}-mpesa-gateway"

        def look() -> str | None:
            data = (self.kubernetes.find(path) or {}).get("data", {})
            return b64decode(data[API_KEY_FIELD]).decode() if API_KEY_FIELD in data else None

        found = wait_for(look, what=f"the key of {merchant}")
        assert found is not None
        return found

    def change_merchant(self, merchant: str, **spec: object) -> None:
        """Edit a MerchantConfig."""
        self.kubernetes.write(f"{CONFIGS}/{merchant}", {"spec": spec})

    def change_credentials(self, **values: str) -> None:
        """Edit the Secret with the merchants' Daraja credentials."""
        path = f"/api/v1/namespaces/{SHOPS}/secrets/daraja"
        self.kubernetes.write(path, {"data": _encoded(values)})


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Everything started and scraped at least once; nothing has happened yet."""
    with ExitStack() as opened:
        postgres, redis = EmbeddedPostgres(directory, durable=False), EmbeddedRedis(directory)
        for store in (postgres, redis):
            store.start()
            opened.callback(store.stop)
        database_url = postgres.create_database("gateway")
        apply_migrations(database_url, load_migrations(migrations_directory()), lambda _: None)
        simulator = opened.enter_context(
            RunningSimulator(Settings(callback_delay=0.5, late_delay=20.0, hang_delay=12.0))
        )
        endpoints = Endpoints(*(opened.enter_context(Receiver()) for _ in range(6)))
        endpoints.misbehave()
        merchants_dir = directory / "merchants"
        merchants_dir.mkdir()
        port, api_metrics, operator_metrics = free_port(), free_port(), free_port()
        worker_metrics = [free_port() for _ in range(WORKERS)]
        kubernetes = opened.enter_context(KubernetesStub(_Kubelet(merchants_dir)))
        gateway = opened.enter_context(
            processes(
                directory,
                database_url=database_url,
                redis_url=redis.url(),
                base_url=simulator.url,
                callback_port=port,
                merchants_dir=str(merchants_dir),
                **SETTINGS,
            )
        )
        gateway.api(port, metrics_port=str(api_metrics))
        workers = [gateway.worker(metrics_port=str(it)) for it in worker_metrics]
        _fill(kubernetes, {"api-1": api_metrics, **_named("worker", worker_metrics)})
        opened.callback(_operator(directory, kubernetes, simulator, operator_metrics).stop)
        prometheus = Prometheus(
            directory / "prometheus",
            {
                "api": [f"127.0.0.1:{api_metrics}"],
                "worker": [f"127.0.0.1:{it}" for it in worker_metrics],
                "operator": [f"127.0.0.1:{operator_metrics}"],
            },
        )
        opened.enter_context(prometheus)
        prometheus.wait_until_scraped()
        yield Stage(
            directory,
            postgres,
            redis,
            simulator,
            endpoints,
            gateway,
            kubernetes,
            merchants_dir,
            port,
            workers,
            prometheus,
        )


# Quick, and with budgets that a minute's load uses up.
SETTINGS = {
    "sweep_interval": "500ms",
    "lease": "12s",
    "webhook_retry_schedule": "1s,1s,2s",
    "query_schedule": "2s,3s",
    "prompt_life": "2s",
    "safaricom_query_per_minute": "120",
    "safaricom_push_per_minute": "600",
    "metrics_merchant_label": "true",
}


def _named(component: str, ports: list[int]) -> dict[str, int]:
    return {f"{component}-{number}": port for number, port in enumerate(ports, start=1)}


class _Kubelet:
    """Writes the operator's bundle where the gateway's pods read it, as a Secret volume does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, path: str, body: Json) -> None:
        if f"/{GATEWAY}/secrets/{FULLNAME}-merchants-" in path:
            for name, value in body.get("data", {}).items():
                write_file(self._directory / name, b64decode(value))


def _fill(kubernetes: KubernetesStub, pods: dict[str, int]) -> None:
    """The gateway's pods, two good merchants, and one whose credentials are missing."""
    for name, port in pods.items():
        labels = {
            "app.kubernetes.io/name": "mpesa-gateway",
            "app.kubernetes.io/instance": RELEASE,
            "app.kubernetes.io/component": name.partition("-")[0],
        }
        container = {"name": "main", "ports": [{"name": "metrics", "containerPort": port}]}
        status = {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
        body = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        kubernetes.write(f"/api/v1/namespaces/{GATEWAY}/pods/{name}", {**body, "status": status})
    credentials = {
        "consumerKey": "shop-consumer-key",
        "consumerSecret": "shop-consumer-secret",
        "passkey": "shop-passkey-0123456789",
    }
    secret = {"data": _encoded(credentials), "type": "Opaque"}
    kubernetes.write(f"/api/v1/namespaces/{SHOPS}/secrets/daraja", secret)
    for number, name in enumerate((*MERCHANT_NAMES, "kibanda")):
        spec = {
            "environment": "sandbox",
            "shortCode": str(600100 + number),
            "transactionType": "CustomerPayBillOnline",
            "credentialsSecretRef": {"name": "daraja" if name in MERCHANT_NAMES else "nowhere"},
            "webhook": {"retrySchedule": ["1s", "1s", "2s"]},
        }
        kubernetes.write(f"{CONFIGS}/{name}", {"spec": spec})
    kubernetes.write(f"{CONFIGS}/unreadable", {"spec": {"shortCode": "of an older version"}})


def _operator(
    directory: Path, kubernetes: KubernetesStub, simulator: RunningSimulator, metrics_port: int
) -> Process:
    health_port = free_port()
    environment = {
        "KUBECONFIG": str(kubernetes.kubeconfig(directory / "kubeconfig")),
        "MPESA_OPERATOR_NAMESPACE": GATEWAY,
        "MPESA_OPERATOR_INSTANCE": RELEASE,
        "MPESA_OPERATOR_FULLNAME": FULLNAME,
        "MPESA_OPERATOR_WATCH_NAMESPACES": SHOPS,
        "MPESA_OPERATOR_RESYNC": "3s",
        "MPESA_OPERATOR_HEALTH_PORT": str(health_port),
        "MPESA_METRICS_PORT": str(metrics_port),
        "MPESA_SAFARICOM_BASE_URL": simulator.url,
        "MPESA_SAFARICOM_CALLBACK_URL": "https://pay.example/callback",
        "MPESA_WEBHOOK_ALLOW_PRIVATE": "true",
    }
    process = Process(
        "operator",
        [sys.executable, "-m", "mpesa_operator"],
        log=directory / "operator.log",
        env=clean_env(environment),
    )

    def is_up() -> bool:
        try:
            url = f"http://127.0.0.1:{health_port}/healthz"
            return requests.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    process.wait_until(is_up)
    return process

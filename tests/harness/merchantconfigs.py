"""MerchantConfigs, their Secrets, pods that report, and the operator as a real process."""

from __future__ import annotations

import base64
import copy
import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import requests

from harness.apiserver import (
    GROUP_PATH,
    ApiServer,
    Json,
    Kube,
    RefusedError,
    rbac_path,
    render,
    service_account_token,
)
from harness.waiting import wait_for
from mpesa_devkit.http_server import QuietServer
from mpesa_devkit.processes import Process, clean_env, free_port
from mpesa_gateway.config.merchant_file import MerchantFile
from mpesa_gateway.domain.bundle import file_digest

RELEASE = "g"
FULLNAME = f"{RELEASE}-mpesa-gateway"
GATEWAY = "gateway"
BUNDLE = f"{FULLNAME}-merchants-0"
SHA_ANNOTATION = "mpesa-gateway.dev/merchants-sha256"
FINALIZER = "mpesa-gateway.dev/drain"
DARAJA = {
    "consumerKey": "canary-consumer-key-1f9d",
    "consumerSecret": "canary-consumer-secret-77ab",
    "passkey": "canary-passkey-c0ffee",
}
PAYBILL: Json = {
    "environment": "sandbox",
    "shortCode": "174379",
    "transactionType": "CustomerPayBillOnline",
    "credentialsSecretRef": {"name": "daraja"},
}


def merchant_config(name: str = "duka", namespace: str = "shops", **spec: Any) -> Json:
    """A good MerchantConfig; a field that is `...` is left out."""
    merged = {**copy.deepcopy(PAYBILL), **spec}
    return {
        "apiVersion": "mpesa-gateway.dev/v1alpha1",
        "kind": "MerchantConfig",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {key: value for key, value in merged.items() if value is not ...},
    }


def secret(name: str, namespace: str, values: Mapping[str, str]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": dict(values),
    }


def values_of(body: Json) -> dict[str, str]:
    """The decoded values of a Secret."""
    return {
        name: base64.b64decode(value).decode() for name, value in (body.get("data") or {}).items()
    }


def condition(body: Json, kind: str) -> Json:
    """One condition, `{}` when there is none."""
    conditions = (body.get("status") or {}).get("conditions") or []
    found: Json = next((item for item in conditions if item["type"] == kind), {})
    return found


@dataclass
class Shops:
    """What a merchant and a platform team do, in one namespace."""

    kube: Kube
    namespace: str

    def path(self, name: str = "duka") -> str:
        return f"{GROUP_PATH}/namespaces/{self.namespace}/merchantconfigs/{name}"

    def secret_path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets/{name}"

    def add_secret(self, name: str = "daraja", **values: str) -> None:
        body = secret(name, self.namespace, {**DARAJA, **values})
        self.kube.create(f"/api/v1/namespaces/{self.namespace}/secrets", body)

    def change_secret(self, name: str = "daraja", **values: str) -> None:
        self.kube.patch(self.secret_path(name), {"stringData": values})

    def add(self, name: str = "duka", **spec: Any) -> Json:
        body = merchant_config(name, self.namespace, **spec)
        base = f"{GROUP_PATH}/namespaces/{self.namespace}/merchantconfigs"
        return self.kube.create(base, body)

    def change(self, name: str = "duka", **spec: Any) -> Json:
        return self.kube.patch(self.path(name), {"spec": spec})

    def get(self, name: str = "duka") -> Json:
        return self.kube.get(self.path(name))

    def delete(self, name: str = "duka") -> None:
        self.kube.delete(self.path(name))

    def wait(
        self,
        kind: str,
        status: str,
        reason: str | None = None,
        *,
        name: str = "duka",
        timeout_s: float = 20,
    ) -> Json:
        """The object, once that condition says so about its present generation."""

        def look() -> Json | None:
            body = self.get(name)
            found = condition(body, kind)
            right = found.get("status") == status and reason in (None, found.get("reason"))
            current = found.get("observedGeneration") == body["metadata"]["generation"]
            return body if right and current else None

        try:
            body = wait_for(look, timeout_s=timeout_s, what=f"{kind}={status}/{reason}")
        except AssertionError as error:
            raise AssertionError(f"{error}; status: {self.get(name).get('status')}") from None
        assert body is not None
        return body

    def generated(self, name: str = "duka") -> dict[str, str]:
        return values_of(self.kube.get(self.secret_path(f"{name}-mpesa-gateway")))

    def file(self, name: str = "duka") -> Json | None:
        """The published merchant file; None when there is none."""
        body = self.kube.find(f"/api/v1/namespaces/{GATEWAY}/secrets/{BUNDLE}")
        text = values_of(body or {}).get(f"{self.namespace}.{name}.json")
        return None if text is None else json.loads(text)


@dataclass
class FakePod:
    """A pod of the gateway: loads the bundle when its annotation moves, and reports."""

    kube: Kube
    name: str
    component: str
    frozen: bool = False
    silent: bool = False
    webhooks: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    bumps: int = 0
    ready: bool = True

    def __post_init__(self) -> None:
        self._seen: Json | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        pod = self
        server = QuietServer(("127.0.0.1", 0), _handler(pod.report))
        self._server = server
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._kubelet = Kube(self.kube.url, self.kube.ca, self.kube.token)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{GATEWAY}/pods/{self.name}"

    def start(self) -> FakePod:
        labels = {
            "app.kubernetes.io/name": "mpesa-gateway",
            "app.kubernetes.io/instance": RELEASE,
            "app.kubernetes.io/component": self.component,
        }
        ports = [{"name": "metrics", "containerPort": self.port}]
        container = {"name": self.component, "image": "none", "ports": ports}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": GATEWAY, "labels": labels},
            "spec": {"containers": [container], "schedulerName": "nobody"},
        }
        self.kube.create(f"/api/v1/namespaces/{GATEWAY}/pods", body)
        self.load()
        self.set_ready(ready=self.ready)
        self._thread.start()
        return self

    def set_ready(self, *, ready: bool) -> None:
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
        body = {"status": {**status, "conditions": conditions}}
        self.kube.patch(f"{self.path}/status", body)

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._server.shutdown()
        self._server.server_close()
        if self.kube.find(self.path) is not None:
            self.kube.call("DELETE", f"{self.path}?gracePeriodSeconds=0")
        self._kubelet.session.close()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            try:
                found = self._kubelet.get(self.path)["metadata"].get("annotations")
                if found != self._seen:
                    self._seen = found
                    self.bumps += 1
                    if not self.frozen:
                        self.load()
            except (requests.RequestException, RuntimeError):
                continue
            except RefusedError as error:
                # An API server that shuts down says 503; kubelets ask again.
                if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise

    def load(self) -> None:
        """As the kubelet and the real pod do: a file that is refused keeps the last good one."""
        found = self._kubelet.find(f"/api/v1/namespaces/{GATEWAY}/secrets/{BUNDLE}")
        texts = values_of(found or {})
        good, errors = {}, {}
        for name, text in texts.items():
            try:
                MerchantFile.model_validate_json(text)
                good[name] = text
            except ValueError:
                errors[name] = "the file is not one"
        with self._lock:
            self.files, self.errors = good, errors

    def report(self) -> Json | None:
        if self.silent:
            return None
        with self._lock:
            merchants = {
                json.loads(text)["name"]: {
                    "digest": file_digest(text.encode()),
                    "webhooks": self.webhooks.get(json.loads(text)["name"]),
                }
                for text in self.files.values()
            }
            return {"version": 1, "sha256": "", "merchants": merchants, "errors": self.errors}


def _handler(look: Callable[[], Json | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            report = look()
            if report is None or self.path != "/merchants":
                self.send_error(503)
                return
            body = json.dumps(report).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@dataclass
class Operator:
    """Starts the operator with the service account and the rendered Role."""

    server: ApiServer
    directory: Path
    base_url: str
    namespaces: tuple[str, ...]
    secret_watch: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    process: Process | None = None
    release: str = RELEASE

    @property
    def fullname(self) -> str:
        return f"{self.release}-mpesa-gateway"

    def install_rbac(self) -> str:
        """Apply what the chart renders; the token of the operator's account."""
        admin = self.server.admin
        operator = {
            "enabled": True,
            "watchNamespaces": list(self.namespaces),
            "secretWatch": {"enabled": self.secret_watch},
            **self.values,
        }
        bodies = [
            body
            for template in ("rbac", "admission-policy")
            for body in render(
                self.release, GATEWAY, f"templates/operator/{template}.yaml", {"operator": operator}
            )
        ]
        for body in bodies:
            admin.apply(rbac_path(body), body)
        return service_account_token(admin, GATEWAY, f"{self.fullname}-operator")

    def start(self, *, install_rbac: bool = True) -> None:
        if install_rbac:
            self.token = self.install_rbac()
        self.metrics_port, self.health_port = free_port(), free_port()
        self.process = Process(
            "operator",
            [sys.executable, "-m", "mpesa_operator"],
            log=self.log,
            env=self.environment(),
        )
        # On two busy cores its imports alone take a quarter of a minute.
        self.process.wait_until(self.is_up, timeout_s=120)

    def environment(self) -> dict[str, str]:
        """As the chart sets it."""
        config = self.server.kubeconfig(self.directory / "operator.kubeconfig", self.token)
        environment = {
            "KUBECONFIG": str(config),
            "MPESA_OPERATOR_NAMESPACE": GATEWAY,
            "MPESA_OPERATOR_INSTANCE": self.release,
            "MPESA_OPERATOR_FULLNAME": self.fullname,
            "MPESA_OPERATOR_WATCH_NAMESPACES": ",".join(self.namespaces),
            "MPESA_OPERATOR_DRAIN": "2s",
            "MPESA_OPERATOR_SECRET_WATCH": str(self.secret_watch).lower(),
            "MPESA_OPERATOR_RESYNC": "3s",
            "MPESA_OPERATOR_HEALTH_PORT": str(self.health_port),
            "MPESA_METRICS_PORT": str(self.metrics_port),
            "MPESA_SAFARICOM_BASE_URL": self.base_url,
            "MPESA_SAFARICOM_CALLBACK_URL": "https://pay.example/callback",
            "MPESA_SAFARICOM_IPS": "196.201.212.0/22",
            **self.settings,
        }
        return clean_env(environment)

    @property
    def log(self) -> Path:
        return self.directory / "operator.log"

    def is_up(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.health_port}/healthz"
            return requests.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def metrics(self) -> str:
        return requests.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5).text

    def stop(self) -> None:
        if self.process is not None and self.process.is_running():
            self.process.stop()
        self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process = None

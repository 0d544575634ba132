"""Pods beside the gateway, in its namespace but not of its release: they outlive its upgrades."""

from __future__ import annotations

from typing import Any

from harness.docker import gateway_image
from harness.kube import Kube, Object
from harness.neighbour import PROGRAM

SHOP = "shop"
SAFARICOM = "safaricom"
SHOP_PORT = 8000
SAFARICOM_PORT = 8080


def safaricom_url(kube: Kube) -> str:
    """A stand-in for Safaricom that no upgrade of the release restarts."""
    return f"http://{SAFARICOM}.{kube.namespace}.svc:{SAFARICOM_PORT}"


def shop_hook(kube: Kube) -> str:
    """The merchant's endpoint."""
    return f"http://{SHOP}.{kube.namespace}.svc:{SHOP_PORT}/hook"


def shop() -> list[Object]:
    """The program of `traffic.py`: the merchant's endpoint and its clients."""
    program: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SHOP},
        "data": {"traffic.py": PROGRAM.read_text(encoding="utf-8")},
    }
    container = {
        "command": ["python", "/program/traffic.py"],
        "volumeMounts": [{"name": "program", "mountPath": "/program", "readOnly": True}],
    }
    volume = {"name": "program", "configMap": {"name": SHOP}}
    return [program, *_served(SHOP, SHOP_PORT, "/", container, volume)]


def safaricom() -> list[Object]:
    """The simulator; late callbacks come after a few seconds."""
    settings = {"HOST": "0.0.0.0", "PORT": str(SAFARICOM_PORT), "LATE_DELAY": "6s"}  # noqa: S104
    container = {
        "args": ["simulator"],
        "env": [{"name": f"MPESA_SIMULATOR_{key}", "value": it} for key, it in settings.items()],
    }
    return _served(SAFARICOM, SAFARICOM_PORT, "/health", container)


def _served(
    name: str, port: int, path: str, container: dict[str, Any], *volumes: dict[str, Any]
) -> list[Object]:
    """A Service and its pod, as restricted as the gateway's own."""
    labels = {"app": name}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": name,
                    "image": gateway_image(),
                    "ports": [{"containerPort": port}],
                    "readinessProbe": {
                        "httpGet": {"path": path, "port": port},
                        "periodSeconds": 1,
                        # Ready once, it stays so: on two cores a rollout starves it for seconds,
                        # and a Safaricom without endpoints refuses what the gateway sends.
                        "timeoutSeconds": 5,
                        "failureThreshold": 30,
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    **container,
                }
            ],
            "volumes": list(volumes),
        },
    }
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"port": port}]},
    }
    return [service, pod]

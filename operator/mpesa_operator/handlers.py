"""Where kopf calls us. Nothing is decided here.

Only `on.event` is used: kopf's own change detection would copy the object into an annotation, and
all we need to know is that something changed. Secrets are watched by `secret_watch`, which sees
their metadata only; kopf would fetch the credentials.
"""

from __future__ import annotations

from typing import Any

import kopf

from mpesa_operator.app import App
from mpesa_operator.platform_settings import GROUP, PLURAL, VERSION
from mpesa_operator.settings import Settings

ANNOTATION_PREFIX = "operator.mpesa-gateway.dev"
# Watches end by themselves after this long, and begin again where they were.
WATCH_SERVER_TIMEOUT_S = 300
WATCH_CLIENT_TIMEOUT_S = 330
CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 30
WARNING = 30


def make_registry(app: App) -> kopf.OperatorRegistry:
    """The handlers."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def merchant(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002
        if type == "DELETED":
            app.merchant_gone(dict(body))
        else:
            app.merchant_seen(dict(body))

    @kopf.on.probe(registry=registry, id="seconds since the last sweep")
    async def age(**_: Any) -> int:
        return round(app.age_s())

    return registry


def make_settings() -> kopf.OperatorSettings:
    """How kopf is to behave."""
    settings = kopf.OperatorSettings()
    settings.posting.level = WARNING
    settings.posting.loggers = False
    # Neither namespaces nor CRDs are watched: the names are given, the CRD was there at the start.
    settings.scanning.disabled = True
    settings.watching.server_timeout = WATCH_SERVER_TIMEOUT_S
    settings.watching.client_timeout = WATCH_CLIENT_TIMEOUT_S
    settings.watching.connect_timeout = CONNECT_TIMEOUT_S
    settings.networking.request_timeout = REQUEST_TIMEOUT_S
    # Nothing is stored today; whoever adds a handler that does finds it under our own name.
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(
        prefix=ANNOTATION_PREFIX
    )
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix=ANNOTATION_PREFIX, key="last-handled"
    )
    return settings


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def run_kopf(app: App, settings: Settings) -> None:
    """Watch until a signal ends the process."""
    namespaces = settings.watch_namespaces
    await kopf.operator(
        registry=make_registry(app),
        settings=make_settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        liveness_endpoint=f"http://{_in_url(settings.host)}:{settings.health_port}/healthz",
    )

"""The ASGI application: its routes, and what starts and stops with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from falcon.asgi import App, Request, Response

from mpesa_gateway.api.callbacks.fast_path import FAST_PATH, FastPath
from mpesa_gateway.api.callbacks.inbox import Inbox
from mpesa_gateway.api.callbacks.known import KnownPushes
from mpesa_gateway.api.callbacks.resource import CallbackResource
from mpesa_gateway.api.connections import CONNECTIONS, Connections
from mpesa_gateway.api.docs_page import DocsResource
from mpesa_gateway.api.errors import add_error_handlers
from mpesa_gateway.api.health import HealthResource, LiveResource, ReadyResource
from mpesa_gateway.api.life import Life
from mpesa_gateway.api.openapi import OpenApiResource
from mpesa_gateway.api.payments import InitiateResource
from mpesa_gateway.api.requestlog import REQUEST_ID, RequestLog
from mpesa_gateway.api.threads import Threads
from mpesa_gateway.api.transactions import (
    RedeliverResource,
    TransactionResource,
    TransactionsResource,
)
from mpesa_gateway.domain.work import Work
from mpesa_gateway.services import Services
from mpesa_gateway.store.spool import Spool
from mpesa_gateway.telemetry.log import begin, in_hand

# Paths whose answers hold phones: no cache may keep them.
PERSONAL = ("/initiate", "/transactions")
# GETs have threads of their own, so that slow pushes never hold them up.
READ_THREADS = 16
READS_WAITING = 240
HEALTH_THREADS = 2
HEALTH_WAITING = 62
# Of callbacks on the plain path or with a large body: one, since it shares the inbox's connections.
LOOK_UP_THREADS = 1
LOOK_UPS_WAITING = 255


class Middleware:
    """Starts and stops the inbox with the server, and notes every request."""

    def __init__(
        self,
        inbox: Inbox,
        *,
        fast_path: FastPath,
        connections: Connections,
        life: Life,
        requests: RequestLog,
        threads: list[Threads],
        on_shutdown: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._fast_path = fast_path
        self._connections = connections
        self._life = life
        self._requests = requests
        self._threads = threads
        self._on_shutdown = on_shutdown

    async def process_startup(self, scope: dict[str, Any], _event: dict[str, Any]) -> None:
        """Before the first request. The server hands its state on to each connection."""
        self._inbox.start()
        self._life.begin(self._inbox.is_alive)
        scope.get("state", {}).update({FAST_PATH: self._fast_path, CONNECTIONS: self._connections})

    async def process_shutdown(self, _scope: dict[str, Any], _event: dict[str, Any]) -> None:
        """After the last request."""
        self._inbox.stop()
        for threads in self._threads:
            threads.close()
        self._on_shutdown()

    async def process_request(self, req: Request, resp: Response) -> None:
        """Note when it began, and what its caller calls it."""
        req.context.started = time.monotonic()
        request_id = req.get_header("X-Request-ID")
        if request_id is None or not REQUEST_ID.fullmatch(request_id):
            begin()
            return
        begin(request_id=request_id)
        resp.set_header("X-Request-ID", request_id)

    async def process_response(
        self, req: Request, resp: Response, _resource: object, _succeeded: bool
    ) -> None:
        """Count it; one line, with the route's template: the path may hold a callback token.

        A final slash makes no other route.
        """
        if req.path.startswith(PERSONAL):
            resp.set_header("Cache-Control", "no-store")
        self._requests.note(
            method=req.method,
            route=req.uri_template and req.uri_template.removesuffix("/"),
            status=resp.status_code,
            took_s=time.monotonic() - req.context.started,
            about=in_hand(),
        )


def create_app(
    services: Services,
    *,
    notify: Callable[[list[Work]], None],
    is_stopping: Callable[[], bool] = lambda: False,
    life: Life | None = None,
    on_shutdown: Callable[[], None] = lambda: None,
) -> App[Request, Response]:
    """The application. `notify` announces work after its commit; `on_shutdown` comes last."""
    config, pool, merchants = services.config, services.pool, services.merchants
    pushes = Threads(config.pushes_in_flight, "push", tenancy=merchants.tenancy)
    reads = Threads(READ_THREADS, "read", waiting=READS_WAITING, tenancy=merchants.tenancy)
    checks = Threads(HEALTH_THREADS, "health", waiting=HEALTH_WAITING)
    look_ups = Threads(LOOK_UP_THREADS, "look-up", waiting=LOOK_UPS_WAITING)
    inbox = Inbox(
        services.reserved_pool,
        merchants=merchants.current,
        platform=config.safaricom_ips,
        clock=services.clock,
        notify=notify,
        token_keys=config.token_keys,
        spool=Spool(config.spool_dir, "callback") if config.spool_dir is not None else None,
        remember=services.recovery.remember_callbacks,
    )
    requests = RequestLog()
    middleware = Middleware(
        inbox,
        fast_path=FastPath(inbox, requests, trusted=config.trusted_proxies),
        connections=Connections(listed=config.safaricom_ips, trusted=config.trusted_proxies),
        life=life or Life(),
        requests=requests,
        threads=[pushes, reads, checks, look_ups],
        on_shutdown=on_shutdown,
    )
    app: App[Request, Response] = App(middleware=[middleware])
    app.req_options.strip_url_path_trailing_slash = False
    app.req_options.keep_blank_qs_values = True
    add_error_handlers(app)

    known = KnownPushes(
        services.reserved_pool,
        look_ups,
        merchants.current,
        platform=config.safaricom_ips,
        token_keys=config.token_keys,
    )
    callback = CallbackResource(
        inbox, known, platform=config.safaricom_ips, trusted=config.trusted_proxies
    )
    transaction = TransactionResource(pool, merchants, reads)
    ready = ReadyResource(
        services.reserved_pool,
        checks,
        merchants,
        schema_version=services.schema_version,
        is_stopping=is_stopping,
    )
    app.add_route("/initiate", InitiateResource(services.payments, merchants, pushes, notify))
    app.add_route("/callback", callback)
    app.add_route("/callback/{token}", callback, suffix="token")
    app.add_route("/callback/{token}/", callback, suffix="token")
    app.add_route("/transactions", TransactionsResource(pool, merchants, reads))
    app.add_route("/transactions/{transaction_id}", transaction)
    app.add_route("/transactions/{transaction_id}/deliveries", transaction, suffix="deliveries")
    app.add_route(
        "/transactions/{transaction_id}/redeliver",
        RedeliverResource(pool, merchants, reads, clock=services.clock, notify=notify),
    )
    app.add_route(
        "/health",
        HealthResource(
            services.reserved_pool,
            checks,
            schema_version=services.schema_version,
            is_writable=services.watch.is_writable,
        ),
    )
    app.add_route("/livez", LiveResource(inbox, services.watch.is_stuck))
    app.add_route("/readyz", ready)
    app.add_route("/openapi.json", OpenApiResource())
    app.add_route("/docs", DocsResource())
    return app

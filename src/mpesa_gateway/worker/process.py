"""`mpesa-gateway worker`: consumes the queue, sweeps, and stops gracefully on SIGTERM."""

from __future__ import annotations

import signal
import sys

from prometheus_client import REGISTRY

from mpesa_gateway.config import Config
from mpesa_gateway.exporters.backlog import BacklogExporter
from mpesa_gateway.exporters.http_server import (
    WORKER_METRICS_PORT,
    bind_metrics_port,
    serve_metrics,
)
from mpesa_gateway.exporters.merchants import WebhookHealth, report
from mpesa_gateway.exporters.pools import PoolExporter
from mpesa_gateway.services import Services, open_services
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases.endpoint_limiter import threads_for
from mpesa_gateway.usecases.months import Months
from mpesa_gateway.usecases.resolutions import count_resolved
from mpesa_gateway.work_queue import Notifier, WorkQueue
from mpesa_gateway.worker.dispatcher import Dispatcher
from mpesa_gateway.worker.sweeper import Sweeper, Webhooks

LOGGER = get_logger(__name__)
# Longer than a webhook's deadline; what is not done by then is found again by its lease.
SHUTDOWN_TIMEOUT_S = 20
# Of the sweeper, for callbacks and for queries: what they do without Redis must not depend on the
# concurrency.
LEAST_THREADS = 8


def run_worker(config: Config) -> None:
    """Work until SIGTERM. Raises ConfigError when the metrics port is in use."""
    # Until huey has its own handlers: a pod may be told to stop while it starts.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port = WORKER_METRICS_PORT if config.metrics_port is None else config.metrics_port
    metrics_socket = bind_metrics_port(config.server_host, port)
    with open_services(config, role="worker") as services:
        work_queue = WorkQueue(config.redis_url)
        notifier = Notifier(work_queue)
        dispatcher = Dispatcher(services, notifier)
        health = WebhookHealth(services.pool)
        sweeper = _sweeper(services, dispatcher, health)
        services.watch.start()
        sweeper.start()
        dispatcher.hand_over, notifier.on_lost = sweeper.hand_over, sweeper.take_lost
        notifier.start()
        services.recovery.start()
        dispatcher.register(work_queue)
        if metrics_socket is not None:
            serve_metrics(
                metrics_socket,
                lambda: sweeper.is_alive() and not services.watch.is_stuck(),
                lambda: report(services.merchants, health.of),
            )
        try:
            _consume(config, work_queue)
        finally:
            services.recovery.stop()
            sweeper.stop()
            notifier.stop()
            services.watch.stop()
    LOGGER.info("worker stopped")


def _sweeper(services: Services, dispatcher: Dispatcher, health: WebhookHealth) -> Sweeper:
    config = services.config
    exporter = BacklogExporter(services.pool, services.clock)
    months = Months(services.pool, services.clock)
    REGISTRY.register(exporter)
    REGISTRY.register(PoolExporter(services.pool, services.reserved_pool))

    def after_round() -> None:
        exporter.refresh()
        health.refresh()
        count_resolved(services.pool)
        services.retention.run()
        months.refresh()

    return Sweeper(
        services.pool,
        dispatcher.run,
        clock=services.clock,
        interval=config.sweep_interval,
        threads=max(LEAST_THREADS, config.worker_concurrency // 2),
        webhooks=Webhooks(
            threads_for(config.worker_concurrency),
            services.deliveries.is_deferred,
            services.deliveries.next_deferred,
        ),
        before_round=services.watch.read_clock,
        after_round=after_round,
    )


def _consume(config: Config, work_queue: WorkQueue) -> None:
    """Until SIGTERM: huey's graceful stop, which is gunicorn's too (one image, one signal)."""
    consumer = work_queue.create_consumer(
        workers=threads_for(config.worker_concurrency),
        worker_type="thread",
        periodic=False,
        initial_delay=0.2,
        max_delay=2.0,
        graceful_signal="TERM",
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    LOGGER.info("worker started", threads=config.worker_concurrency)
    consumer.run()

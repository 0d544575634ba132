"""`mpesa-gateway worker`: consumes the queue, sweeps, and stops gracefully on SIGTERM."""

from __future__ import annotations

import signal
import sys

from prometheus_client import REGISTRY

from mpesa_gateway.ages import AgeExporter
from mpesa_gateway.config import Config
from mpesa_gateway.log import get_logger
from mpesa_gateway.metrics_server import bind_metrics_port, serve_metrics
from mpesa_gateway.pools import PoolExporter
from mpesa_gateway.report import WebhookHealth, report
from mpesa_gateway.services import Services, open_services
from mpesa_gateway.sweeper import Sweeper
from mpesa_gateway.tasks import Bell, Tasks, WorkQueue
from mpesa_gateway.usecases.gate import threads_for
from mpesa_gateway.usecases.resolutions import count_resolved

LOGGER = get_logger(__name__)
# Longer than a webhook's deadline; what is not done by then is found again by its lease.
SHUTDOWN_TIMEOUT_S = 20


def run_worker(config: Config) -> None:
    """Work until SIGTERM. Raises ConfigError when the metrics port is in use."""
    # Until huey has its own handlers: a pod may be told to stop while it starts.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    metrics_socket = bind_metrics_port(config.server_host, config.metrics_port)
    with open_services(config, role="worker") as services:
        work_queue = WorkQueue(config.redis_url)
        bell = Bell(work_queue)
        bell.start()
        tasks = Tasks(services, bell)
        tasks.register(work_queue)
        health = WebhookHealth(services.pool)
        sweeper = _sweeper(services, tasks, health)
        sweeper.start()
        if metrics_socket is not None:
            serve_metrics(
                metrics_socket, sweeper.is_alive, lambda: report(services.merchants, health.of)
            )
        try:
            _consume(config, work_queue)
        finally:
            sweeper.stop()
            bell.stop()
    LOGGER.info("worker stopped")


def _sweeper(services: Services, tasks: Tasks, health: WebhookHealth) -> Sweeper:
    config = services.config
    exporter = AgeExporter(services.pool, services.clock)
    REGISTRY.register(exporter)
    REGISTRY.register(PoolExporter(services.pool, services.reserved_pool))

    def after_round() -> None:
        exporter.refresh()
        health.refresh()
        count_resolved(services.pool)
        services.retention.run()

    return Sweeper(
        services.pool,
        tasks.do,
        clock=services.clock,
        interval=config.sweep_interval,
        threads=max(2, config.worker_concurrency // 2),
        after_round=after_round,
        is_remembered=services.deliveries.is_remembered,
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

"""`python -m mpesa_operator`, which is `mpesa-gateway operator`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import aiohttp
from prometheus_client import start_http_server

from mpesa_gateway.errors import ConfigError
from mpesa_gateway.log import configure_logging, get_logger
from mpesa_operator.app import App, WatchError
from mpesa_operator.cluster import Cluster
from mpesa_operator.handlers import run_kopf
from mpesa_operator.settings import Settings, read_settings

LOGGER = get_logger("mpesa_operator")
MISCONFIGURED = 2
WATCH_LOST = 3
# Their INFO and DEBUG lines name requests, and kopf's DEBUG whole objects.
QUIET = ("kopf", "aiohttp", "httpx2", "httpcore2", "lightkube")


async def serve(settings: Settings) -> None:
    """Run until a signal comes; an error in any loop ends the process, and a new one starts."""
    cluster = Cluster.connect()
    # One Daraja, a few pods; cookies of one merchant must not go along with another's request.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        app = App(cluster, settings, session)
        app.start_watchdog()
        await app.prepare()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in app.loops()]
            await run_kopf(app, settings)
            LOGGER.info("operator stops")
            for task in tasks:
                task.cancel()
    await cluster.close()


def main() -> None:
    """Start the operator; what is wrong with its settings is told line by line."""
    try:
        settings = read_settings(os.environ)
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"  - {problem}\n")
        sys.exit(MISCONFIGURED)
    configure_logging(settings.log_format, settings.log_level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    if settings.metrics_port:
        start_http_server(settings.metrics_port)
    try:
        asyncio.run(serve(settings))
    except* WatchError as errors:
        LOGGER.error("the operator ends, to watch anew", problem=str(errors.exceptions[0]))  # noqa: TRY400
        sys.exit(WATCH_LOST)


if __name__ == "__main__":
    main()

"""`python -m mpesa_operator`, which is `mpesa-gateway operator`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from prometheus_client import start_http_server

from mpesa_gateway.errors import ConfigError
from mpesa_gateway.telemetry.log import configure_logging, get_logger
from mpesa_operator.answers import new_session
from mpesa_operator.app import App, WatchError
from mpesa_operator.cluster import Cluster, ClusterError
from mpesa_operator.handlers import run_kopf
from mpesa_operator.release import release
from mpesa_operator.settings import Settings, read_settings

LOGGER = get_logger("mpesa_operator")
RELEASE = "--release"
FAILED = 1
MISCONFIGURED = 2
WATCH_LOST = 3
# Their INFO and DEBUG lines name requests, and kopf's DEBUG whole objects.
QUIET = ("kopf", "aiohttp", "httpx2", "httpcore2", "lightkube")


def _release(settings: Settings) -> None:
    try:
        asyncio.run(let_go(settings))
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(FAILED)


async def serve(settings: Settings) -> None:
    """Run until a signal comes; an error in any loop ends the process, and a new one starts."""
    cluster = Cluster.connect()
    # One Daraja, a few pods; cookies of one merchant must not go along with another's request.
    async with new_session() as session:
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


async def let_go(settings: Settings) -> None:
    """Take our finalizers off, and end."""
    cluster = Cluster.connect()
    try:
        await release(cluster, settings)
    finally:
        await cluster.close()


def main() -> None:
    """Start the operator; what is wrong with its settings is told line by line."""
    arguments = sys.argv[1:]
    if arguments not in ([], [RELEASE]):
        sys.stderr.write(f"mpesa-gateway operator takes no argument but {RELEASE}\n")
        sys.exit(MISCONFIGURED)
    try:
        settings = read_settings(os.environ)
    except ConfigError as error:
        sys.stderr.write("The operator's configuration cannot be used:\n")
        for problem in error.problems:
            sys.stderr.write(f"  - {problem}\n")
        sys.stderr.write(
            "The Helm chart sets these variables; to run the operator by hand, set what is named"
            " here (docs/merchants.md).\n"
        )
        sys.exit(MISCONFIGURED)
    configure_logging(settings.log_format, settings.log_level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    if arguments == [RELEASE]:
        _release(settings)
        return
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.host)
    try:
        asyncio.run(serve(settings))
    except* WatchError as errors:
        LOGGER.error("the operator ends, to watch anew", problem=str(errors.exceptions[0]))  # noqa: TRY400
        sys.exit(WATCH_LOST)


if __name__ == "__main__":
    main()

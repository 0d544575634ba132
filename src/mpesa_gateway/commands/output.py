"""Options that commands share, JSON on stdout, and the database behind a command."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.tables import FORMATS, Column, table_lines
from mpesa_gateway.config import Config, Needs
from mpesa_gateway.domain.duration import parse_duration
from mpesa_gateway.domain.phone import mask_phone
from mpesa_gateway.domain.work import Work
from mpesa_gateway.errors import SchemaBehindError, UnavailableError
from mpesa_gateway.store.connection_errors import why_not
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import configure_logging

if TYPE_CHECKING:
    from mpesa_gateway.merchants.directory import Snapshot

COMMAND_CONNECTIONS = 2

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")


def output_option(command: Any) -> Any:
    """`-o FORMAT`, and `--json`, which is the same as `-o json`."""

    def as_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.params["output"] = "json"

    def given(ctx: click.Context, _: click.Parameter, value: str) -> str:
        return ctx.params.get("output") or value

    json_flag = click.option(
        "--json", is_flag=True, expose_value=False, is_eager=True, callback=as_json,
        help="The same as -o json.",
    )  # fmt: skip
    choice = click.option(
        "-o", "--output", type=click.Choice(FORMATS, case_sensitive=False), default="table",
        callback=given, help="How to print it: table (the default), wide, json, csv or name.",
    )  # fmt: skip
    return json_flag(choice(command))


class _Time(click.ParamType[datetime]):
    """RFC 3339, or how long ago: `2h`."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """An aware time."""
        if isinstance(value, datetime):
            return value
        try:
            return utc_now() - parse_duration(value)
        except ValueError:
            pass
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            self.fail(
                f"{value!r} is neither 2026-01-31T12:00:00Z nor a duration such as 2h", param, ctx
            )
        return at


TIME = _Time()


older_option = click.option(
    "--older-than", type=TIME, help="Only what came before: 1h ago, or RFC 3339. Else the newest."
)
limit_option = click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))


@contextmanager
def open_database() -> Iterator[tuple[Config, Pool]]:
    """The database that MPESA_DATABASE_URL names. Log lines go to stderr's level only.

    While it is away, the error says what is wrong with it.
    """
    config = Config.from_env(os.environ, Needs.COMMANDS)
    configure_logging(config.log_format, "error")
    pool = Pool(config.database_url, size=COMMAND_CONNECTIONS, name="command")
    pool.open()
    try:
        yield config, pool
    except SchemaBehindError:
        raise
    except UnavailableError as error:
        raise UnavailableError(f"{error} ({why_not(config.database_url)})") from error
    finally:
        pool.close()


def read_merchants() -> tuple[Config, Snapshot]:
    """The merchants of the environment and of MPESA_MERCHANTS_DIR, read afresh."""
    from mpesa_gateway.merchants.directory import MerchantDirectory  # noqa: PLC0415 - pydantic

    config = Config.from_env(os.environ, Needs.MERCHANTS)
    configure_logging(config.log_format, "critical")
    directory = MerchantDirectory(config)
    try:
        directory.refresh()
    except OSError as error:
        raise click.ClickException(
            f"MPESA_MERCHANTS_DIR cannot be read: {type(error).__name__}"
        ) from error
    return config, directory.current()


def wake_workers(config: Config, work: list[Work]) -> None:
    """Ring for the rows; without Redis the sweeper finds them within seconds."""
    from mpesa_gateway.work_queue import Notifier, WorkQueue  # noqa: PLC0415 - huey only where it is needed

    if not config.redis_url:
        return
    notifier = Notifier(WorkQueue(config.redis_url))
    notifier.start()
    notifier.notify(work)
    notifier.stop()


def print_json(value: Any) -> None:
    """The same objects as the API's."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A titled table without borders, one line a row; an empty one says so."""
    click.echo(title)
    if not rows:
        click.echo("  nothing found")
        return
    members = [dict(zip(columns, row, strict=True)) for row in rows]
    for line in table_lines(members, [Column(it.upper(), it) for it in columns], wide=True):
        click.echo(line)


def parse_id(text: str) -> uuid.UUID:
    """A transaction id from the command line."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no transaction id (a UUID)") from None


def masked(phone: str) -> str:
    """Tables are pasted into chats: they show no whole number. `--json` does."""
    return mask_phone(phone)

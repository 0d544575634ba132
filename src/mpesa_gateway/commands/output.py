"""Tables and JSON on stdout, the database behind a command, and its errors."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mpesa_gateway.config import Config, Needs
from mpesa_gateway.domain.duration import parse_duration
from mpesa_gateway.domain.phone import mask_phone
from mpesa_gateway.domain.work import Work
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.log import configure_logging
from mpesa_gateway.services import utc_now
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.reach import why_not

COMMAND_CONNECTIONS = 2
# Columns whose values are arguments of other commands.
COPIED = ("id", "transaction")

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")


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
    except UnavailableError as error:
        raise UnavailableError(f"{error} ({why_not(config.database_url)})") from error
    finally:
        pool.close()


def wake_workers(config: Config, work: list[Work]) -> None:
    """Ring for the rows; without Redis the sweeper finds them within seconds."""
    from mpesa_gateway.tasks import Bell, WorkQueue  # noqa: PLC0415 - huey only where it is needed

    if not config.redis_url:
        return
    bell = Bell(WorkQueue(config.redis_url))
    bell.start()
    bell.ring(work)
    bell.stop()


def print_json(value: Any) -> None:
    """The same objects as the API's."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table as wide as the terminal; an empty one says so.

    What is copied into the next command stays in one piece, however narrow the terminal is.
    """
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in COPIED)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console = Console(soft_wrap=False)
    console.print(table)
    if not rows:
        console.print("  nothing found", style="dim")


def parse_id(text: str) -> uuid.UUID:
    """A transaction id from the command line."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no transaction id (a UUID)") from None


def masked(phone: str) -> str:
    """Tables are pasted into chats: they show no whole number. `--json` does."""
    return mask_phone(phone)

"""`mpesa-gateway stats`: one look, or a table that stays up to date."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.output import json_option, open_database, print_json
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.connection_errors import why_not
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.usecases.stats import read_stats

# What is older than this is shown in red: the SLOs of docs/reliability.md, and a prompt's life.
CALLBACK_LATE_S = 5.0
WEBHOOK_LATE_S = 10.0
PENDING_LATE_S = 300.0
# What all of it takes.
ROWS, COLUMNS = 22, 52
# Name, how many, age of the oldest, beyond what it is late.
Row = tuple[str, int, float | None, float | None]


@click.command()
@click.option("--watch", is_flag=True, help="Stay, and show it again and again; Ctrl-C ends it.")
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.5, 60),
    help="Seconds between looks.",
)
@click.option("--rounds", type=click.IntRange(1), hidden=True, help="End after so many looks.")
@json_option
def stats(watch: bool, interval: float, rounds: int | None, as_json: bool) -> None:
    """Show payments of the last hour, and everything pending: callbacks, webhooks, manual reviews.

    Example: mpesa-gateway stats --watch
    """
    if watch and as_json:
        raise click.UsageError("--json is one look; it does not go with --watch")
    with open_database() as (config, pool):
        if watch:
            _watch(pool, config.database_url, interval, rounds)
        elif as_json:
            print_json(read_stats(pool, utc_now()))
        else:
            Console().print(_table(read_stats(pool, utc_now())))


def _watch(pool: Pool, url: str, interval: float, rounds: int | None) -> None:
    shown, seen_at = 0, None
    with Live(Text("…"), console=Console(), auto_refresh=False) as live:
        try:
            while rounds is None or shown < rounds:
                table, seen_at = _look(pool, url, seen_at, live.console.size)
                live.update(table, refresh=True)
                shown += 1
                if shown != rounds:
                    time.sleep(interval)
        except KeyboardInterrupt:
            return


def _look(
    pool: Pool, url: str, seen_at: str | None, size: ConsoleDimensions
) -> tuple[RenderableType, str | None]:
    """The table and when it was true; without Postgres a sentence, and the next look tries again.

    Old figures are not left standing beside it: they would be read as new ones.
    """
    try:
        view = read_stats(pool, utc_now())
    except UnavailableError as error:
        last = f" (last figures at {seen_at})" if seen_at else ""
        return Text(f"{error} ({why_not(url)}){last}; trying again", "bold red"), seen_at
    fits = size.height >= ROWS and size.width >= COLUMNS
    return (_table(view) if fits else _small_table(view)), view["at"]


def _small_table(view: dict[str, Any]) -> RenderableType:
    """For a terminal that cannot hold all: what waits, and of that what is not zero."""
    some = [it for it in _rows(view) if it[1]]
    return Group(_waiting(some), Text(f"at {view['at']}; all else is 0"))


def _table(view: dict[str, Any]) -> RenderableType:
    hour = Table(title=f"Last hour, at {view['at']}", title_justify="left", show_edge=False)
    for column in ("status", "payments", "KES"):
        hour.add_column(column, justify="left" if column == "status" else "right")
    for status, it in view["last_hour"].items():
        hour.add_row(status, f"{it['count']:,}", f"{int(it['amount']):,}")
    return Group(hour, Text(), _waiting(_rows(view)))


def _waiting(rows: list[Row]) -> Table:
    waiting = Table(title="What waits", title_justify="left", show_edge=False)
    for column in ("what", "how many", "oldest"):
        waiting.add_column(column, justify="left" if column == "what" else "right")
    for name, count, age_s, late_s in rows:
        late = late_s is not None and (count if age_s is None else age_s) > late_s
        waiting.add_row(name, f"{count:,}", _age(age_s), style="red" if late else None)
    return waiting


def _rows(view: dict[str, Any]) -> list[Row]:
    """Name, count, age of the oldest, and beyond what it is shown in red."""
    payments, inbox, outbox = view["transactions"], view["callbacks"], view["deliveries"]
    return [
        ("payments pending", payments["pending"], payments["pending_oldest_s"], PENDING_LATE_S),
        ("payments that need a person", payments["attention"], None, 0),
        ("open conflicts", payments["open_conflicts"], None, 0),
        ("callbacks waiting", inbox["waiting"], inbox["waiting_oldest_s"], CALLBACK_LATE_S),
        ("callbacks in quarantine", inbox["quarantined"], None, 0),
        ("webhooks due", outbox["due"], outbox["due_oldest_s"], WEBHOOK_LATE_S),
        ("webhooks waiting for a retry", outbox["retrying"], None, None),
        ("webhooks of parked endpoints", outbox["parked"], None, 0),
        ("webhooks exhausted", outbox["exhausted"], None, 0),
        ("webhooks gone (410)", outbox["gone"], None, None),
        ("endpoints parked", outbox["endpoints_parked"], None, 0),
    ]


def _age(age_s: float | None) -> str:
    if age_s is None:
        return ""
    if age_s < 120:
        return f"{age_s:.1f} s"
    return f"{age_s / 60:,.0f} min" if age_s < 7200 else f"{age_s / 3600:,.1f} h"

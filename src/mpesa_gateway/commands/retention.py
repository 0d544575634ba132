"""`mpesa-gateway retention list` and `remove`: months of payments, and how one goes for good."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import click

from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.output import json_option, open_database, print_json
from mpesa_gateway.commands.tables import Column, table_lines
from mpesa_gateway.domain.months import Month, month_of, parse_month
from mpesa_gateway.domain.representation import time_text
from mpesa_gateway.store import months, removal
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.usecases.removal import Order, find_obstacles, remove_month

_COLUMNS = (
    Column("MONTH", "month"),
    Column("PARTITIONS, MB", "megabytes"),
    Column("NEWEST PAYMENT", "newest_at"),
    Column("REMOVED", "removed_at"),
    Column("BY", "removed_by"),
    Column("IN THE WAY", "in_the_way", narrow=False),
)


@click.group()
def retention() -> None:
    """Months of payments: show them, remove one."""


@retention.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the months, what may be removed, and what was.

    Example: mpesa-gateway retention list
    """
    with open_database() as (_, pool), pool.connection("command.retention") as conn:
        views = _views(conn)
    if as_json:
        print_json(views)
        return
    rows = [{**it, "in_the_way": "; ".join(it["in_the_way"])} for it in views]
    for line in table_lines(rows, _COLUMNS, wide=True):
        click.echo(line)


def _views(conn: Connection) -> list[dict[str, Any]]:
    sizes: dict[Month, int] = defaultdict(int)
    for it in months.list_partitions(conn):
        if it.month is not None:
            sizes[it.month] += it.bytes
    removals = {parse_month(it.month): it for it in removal.list_removals(conn)}
    now = utc_now()
    views = []
    for month in sorted({*sizes, *removals}):
        content = removal.read_content(conn, month)
        gone = removals.get(month)
        obstacles = find_obstacles(content, now, despite_undelivered=False)
        views.append(
            {
                "month": month.label,
                "is_current": month == month_of(now),
                "megabytes": round(sizes[month] / 1e6, 1) if month in sizes else None,
                "newest_at": time_text(content.newest_at),
                "removed_at": time_text(gone.finished_at) if gone else None,
                "removed_by": gone.removed_by if gone else None,
                "in_the_way": obstacles if content.newest_at else [],
            }
        )
    return views


@retention.command()
@click.argument("month")
@click.option("--by", "person", required=True, help="Who decides it; it is stored.")
@click.option("--reason", required=True, help="Why; it is stored.")
@click.option(
    "--despite-undelivered",
    is_flag=True,
    help="Also payments whose webhook was never delivered.",
)
@click.option(
    "--keep-tables",
    is_flag=True,
    help="Leave the detached partitions as tables of their own, to dump and drop them yourself.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(
    month: str,
    person: str,
    reason: str,
    despite_undelivered: bool,
    keep_tables: bool,
    yes: bool,
) -> None:
    """Remove a month of payments for good, but for their idempotency keys and receipts.

    Refused while anything of it is open. It can be stopped and run again. Take a backup before.

    Example: mpesa-gateway retention remove 2026-01 --by wanjiru --reason "kept for seven years"
    """
    try:
        wanted = parse_month(month)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="MONTH") from error
    if not yes:
        click.confirm(f"Remove all payments of {wanted.label} for good?", abort=True)
    order = Order(
        month=wanted,
        by=person,
        reason=reason,
        despite_undelivered=despite_undelivered,
        keep_tables=keep_tables,
    )
    with open_database() as (_, pool):
        removed = remove_month(pool, order, utc_now, lambda line: click.echo(line, err=True))
    click.echo(f"{removed.payments} payments of {wanted.label} removed; their keys stay.")
    if removed.left:
        raise click.ClickException(
            f"{removed.left} payments or more are left: something of them is open, or became so"
            " meanwhile. Close it, then run this again"
        )

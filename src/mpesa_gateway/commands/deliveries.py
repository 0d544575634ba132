"""`mpesa-gateway deliveries list`, `redeliver` and `redeliveries`."""

from __future__ import annotations

import sys
from datetime import datetime

import click

from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.output import (
    TIME,
    json_option,
    limit_option,
    older_option,
    open_database,
    output_option,
    parse_id,
    print_json,
    wake_workers,
)
from mpesa_gateway.commands.progress import follow
from mpesa_gateway.commands.tables import Column, clock_time, id_suffix, print_list
from mpesa_gateway.domain.delivery import DeliveryState
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.store import delivery_listing
from mpesa_gateway.store.redeliveries import NewRedelivery
from mpesa_gateway.usecases import reading
from mpesa_gateway.usecases.redeliveries import (
    NOT_DELIVERED,
    list_redeliveries,
    order_redelivery,
    read_redelivery,
)

COLUMNS = (
    Column("WEBHOOK", "id", short=id_suffix),
    Column("CREATED", "created_at", short=clock_time),
    Column("TRANSACTION", "transaction_id", short=id_suffix),
    Column("TYPE", "type", short=lambda it: str(it).removeprefix("transaction.")),
    Column("STATE", "state"),
    Column("ATTEMPTS", "attempts_made"),
    Column("NEXT TRY", "next_attempt_at", short=clock_time),
    Column("PARKED", "parked"),
)
ORDERS = (
    Column("ID", "id"),
    Column("ORDERED", "requested_at", short=clock_time),
    Column("BY", "requested_by"),
    Column("MERCHANT", "merchant"),
    Column("SINCE", "since", narrow=False),
    Column("UNTIL", "until", narrow=False),
    Column("LOOKED AT", "looked_at", short=lambda it: f"{it:.0%}"),
    Column("CHOSEN", "chosen"),
    Column("NOW", "counts"),
)


@click.group()
def deliveries() -> None:
    """Webhooks to merchants, and every attempt of them."""


@deliveries.command("list")
@click.option(
    "--state",
    type=click.Choice([state.value for state in DeliveryState], case_sensitive=False),
)
@click.option("--merchant", help="Of this merchant only.")
@click.option("--transaction", help="Of this transaction only, with its attempts.")
@older_option
@limit_option
@output_option
def list_(
    state: str | None,
    merchant: str | None,
    transaction: str | None,
    older_than: datetime | None,
    limit: int,
    output: str,
) -> None:
    """List webhooks, newest first.

    Example: mpesa-gateway deliveries list --state exhausted
    """
    with open_database() as (_, pool):
        if transaction:
            view = reading.read_deliveries(pool, None, parse_id(transaction))
        else:
            with pool.connection("command.deliveries") as conn:
                found = delivery_listing.list_newest(
                    conn,
                    state=state and state.upper(),
                    merchant=merchant,
                    before=older_than,
                    limit=limit,
                )
            view = {"items": [reading.delivery_view(row, None) for row in found]}
    print_list(view["items"], COLUMNS, output, kind="delivery", document=view)


@deliveries.command()
@click.argument("transaction_id", required=False)
@click.option("--merchant", help="All of this merchant, instead of one transaction.")
@click.option("--since", type=TIME, help="Written then or later: RFC 3339, or 2h for 2 hours ago.")
@click.option("--until", type=TIME, help="Written then or before; now when not given.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in DeliveryState], case_sensitive=False),
    help="In this state; may be repeated. Without it: everything that is not delivered, what was"
    " never tried included.",
)
@click.option("--by", "person", help="Who orders it; it is kept.")
@click.option("--wait/--no-wait", default=None, help="Show progress; the default on a terminal.")
@json_option
def redeliver(
    transaction_id: str | None,
    merchant: str | None,
    since: datetime | None,
    until: datetime | None,
    states: tuple[str, ...],
    person: str | None,
    wait: bool | None,
    as_json: bool,
) -> None:
    """Send webhooks again: the same id, the same bytes.

    Of one transaction, delivered ones too; or, with --merchant and --since, as many as there are.
    That order is kept in Postgres and worked off by the workers, whatever becomes of this command.

    Example: mpesa-gateway deliveries redeliver --merchant default --since 2h
    """
    if transaction_id is not None:
        if merchant or since or until or states:
            raise click.UsageError("give a transaction, or --merchant and --since")
        _redeliver_one(transaction_id, as_json=as_json)
        return
    if merchant is None or since is None:
        raise click.UsageError("a transaction is needed, or --merchant and --since")
    now = utc_now()
    if since > (until or now):
        raise click.UsageError("--since is after --until")
    order = NewRedelivery(
        merchant=merchant,
        since=since,
        until=until or now,
        states=tuple(DeliveryState(it.upper()) for it in states) or NOT_DELIVERED,
        requested_by=person,
    )
    with open_database() as (config, pool):
        made = order_redelivery(pool, order, now)
        wake_workers(config, [Work(WorkKind.REDELIVERY, made.id)])
        if as_json:
            print_json(read_redelivery(pool, made.id))
            return
        click.echo(f"Redelivery {made.id} is ordered; the workers go on with it by themselves.")
        if wait if wait is not None else sys.stdout.isatty():
            follow(pool, made.id)


def _redeliver_one(transaction_id: str, *, as_json: bool) -> None:
    with open_database() as (config, pool):
        view, work = reading.redeliver(pool, None, parse_id(transaction_id), utc_now())
        wake_workers(config, work)
    print_list(
        view["items"], COLUMNS, "json" if as_json else "table", kind="delivery", document=view
    )


@deliveries.command()
@click.argument("redelivery_id", required=False, type=int)
@click.option("--watch", is_flag=True, help="Stay and show its progress; Ctrl-C ends only that.")
@limit_option
@output_option
def redeliveries(redelivery_id: int | None, watch: bool, limit: int, output: str) -> None:
    """List orders to send many webhooks again, and how far they have come.

    Example: mpesa-gateway deliveries redeliveries 7 --watch
    """
    if watch and (redelivery_id is None or output != "table"):
        raise click.UsageError("--watch needs the number of one redelivery, and prints no JSON")
    with open_database() as (_, pool):
        if watch and redelivery_id is not None:
            follow(pool, redelivery_id)
            return
        if redelivery_id is None:
            view = list_redeliveries(pool, limit)
        else:
            view = read_redelivery(pool, redelivery_id)
    items = view["items"] if redelivery_id is None else [view]
    rows = [{**item, "counts": _counts(item["now"])} for item in items]
    print_list(rows, ORDERS, output, kind="redelivery", document=view)


def _counts(now: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in now.items() if count)

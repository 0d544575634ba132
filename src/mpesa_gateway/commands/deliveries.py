"""`mpesa-gateway deliveries list`, `redeliver` and `redeliveries`."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from mpesa_gateway.commands.output import (
    TIME,
    json_option,
    limit_option,
    older_option,
    open_database,
    parse_id,
    print_json,
    print_table,
    wake_workers,
)
from mpesa_gateway.commands.progress import follow
from mpesa_gateway.domain.delivery import DeliveryState
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.services import utc_now
from mpesa_gateway.store import outbox
from mpesa_gateway.store.redeliveries import NewRedelivery
from mpesa_gateway.usecases import reading
from mpesa_gateway.usecases.redeliveries import (
    NOT_DELIVERED,
    list_redeliveries,
    order_redelivery,
    read_redelivery,
)


@click.group()
def deliveries() -> None:
    """Webhooks to merchants, and every try of them."""


@deliveries.command("list")
@click.option("--state", type=click.Choice([state.value for state in DeliveryState]))
@click.option("--merchant", help="Of this merchant only.")
@click.option("--transaction", help="Of this transaction only, with its attempts.")
@older_option
@limit_option
@json_option
def list_(
    state: str | None,
    merchant: str | None,
    transaction: str | None,
    older_than: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Newest first."""
    with open_database() as (_, pool):
        if transaction:
            view = reading.read_deliveries(pool, None, parse_id(transaction))
        else:
            with pool.connection("command.deliveries") as conn:
                found = outbox.list_newest(
                    conn, state=state, merchant=merchant, before=older_than, limit=limit
                )
            view = {"items": [reading.delivery_view(row, None) for row in found]}
    if as_json:
        print_json(view)
        return
    _print(view["items"])


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
    if as_json:
        print_json(view)
        return
    _print(view["items"])


@deliveries.command()
@click.argument("redelivery_id", required=False, type=int)
@click.option("--watch", is_flag=True, help="Stay and show its progress; Ctrl-C ends only that.")
@limit_option
@json_option
def redeliveries(redelivery_id: int | None, watch: bool, limit: int, as_json: bool) -> None:
    """Orders to send many webhooks again, and how far they have come."""
    if watch and (redelivery_id is None or as_json):
        raise click.UsageError("--watch needs the number of one redelivery, and no --json")
    with open_database() as (_, pool):
        if watch and redelivery_id is not None:
            follow(pool, redelivery_id)
            return
        if redelivery_id is None:
            view = list_redeliveries(pool, limit)
        else:
            view = read_redelivery(pool, redelivery_id)
    if as_json:
        print_json(view)
        return
    items = view["items"] if redelivery_id is None else [view]
    print_table(
        "Redeliveries",
        ["id", "ordered", "by", "merchant", "since", "until", "looked at", "chosen", "now"],
        [
            [
                item["id"],
                item["requested_at"],
                item["requested_by"],
                item["merchant"],
                item["since"],
                item["until"],
                f"{item['looked_at']:.0%}",
                item["chosen"],
                ", ".join(f"{count} {state}" for state, count in item["now"].items() if count),
            ]
            for item in items
        ],
    )


def _print(items: list[dict[str, Any]]) -> None:
    print_table(
        "Deliveries",
        ["webhook", "created", "transaction", "type", "state", "attempts", "next try", "parked"],
        [
            [
                item["id"],
                item["created_at"],
                item["transaction_id"],
                item["type"],
                item["state"],
                item["attempts_made"],
                item["next_attempt_at"],
                "yes" if item["parked"] else "",
            ]
            for item in items
        ],
    )

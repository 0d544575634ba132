"""`mpesa-gateway deliveries list` and `redeliver`."""

from __future__ import annotations

from typing import Any

import click

from mpesa_gateway.commands.output import (
    json_option,
    limit_option,
    open_database,
    parse_id,
    print_json,
    print_table,
    wake_workers,
)
from mpesa_gateway.services import utc_now
from mpesa_gateway.store import deliveries as store
from mpesa_gateway.usecases import reading


@click.group()
def deliveries() -> None:
    """Webhooks to merchants, and every try of them."""


@deliveries.command("list")
@click.option("--state", type=click.Choice(["PENDING", "DELIVERED", "EXHAUSTED", "GONE"]))
@click.option("--merchant", help="Of this merchant only.")
@click.option("--transaction", help="Of this transaction only, with its attempts.")
@limit_option
@json_option
def list_(
    state: str | None, merchant: str | None, transaction: str | None, limit: int, as_json: bool
) -> None:
    """Newest first."""
    with open_database() as (_, pool):
        if transaction:
            view = reading.read_deliveries(pool, None, parse_id(transaction))
        else:
            with pool.connection("command.deliveries") as conn:
                found = store.list_newest(conn, state=state, merchant=merchant, limit=limit)
            view = {"items": [reading.delivery_view(row, None) for row in found]}
    if as_json:
        print_json(view)
        return
    _print(view["items"])


@deliveries.command()
@click.argument("transaction_id")
@json_option
def redeliver(transaction_id: str, as_json: bool) -> None:
    """Send a transaction's webhooks again, delivered ones too: the same id, the same bytes."""
    with open_database() as (config, pool):
        view, work = reading.redeliver(pool, None, parse_id(transaction_id), utc_now())
        wake_workers(config, work)
    if as_json:
        print_json(view)
        return
    _print(view["items"])


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

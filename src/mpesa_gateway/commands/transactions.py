"""`mpesa-gateway transactions list`, `show` and `resolve`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.output import (
    json_option,
    limit_option,
    masked,
    older_option,
    open_database,
    output_option,
    parse_id,
    print_json,
    wake_workers,
)
from mpesa_gateway.commands.payment_page import print_payment
from mpesa_gateway.commands.tables import Column, clock_time, id_suffix, print_list
from mpesa_gateway.domain.order import parse_order_id
from mpesa_gateway.domain.phone import parse_phone
from mpesa_gateway.domain.resolution import parse_resolution
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.store.transaction_listing import Filter
from mpesa_gateway.usecases import reading, timeline
from mpesa_gateway.usecases.finding import find_transaction
from mpesa_gateway.usecases.resolutions import resolve_transaction

COLUMNS = (
    Column("ID", "transaction_id", short=id_suffix),
    Column("CREATED", "created_at", short=clock_time),
    Column("MERCHANT", "merchant", narrow=False),
    Column("PHONE", "phone"),
    Column("KES", "amount"),
    Column("STATUS", "status"),
    Column("PUSH", "push", narrow=False),
    Column("RECEIPT", "receipt"),
    Column("WHY", "why"),
)


@click.group()
def transactions() -> None:
    """Payments: what was asked for, and how it ended."""


@transactions.command("list")
@click.option("--merchant", help="Of this merchant only.")
@click.option(
    "--status", type=click.Choice([status.value for status in Status], case_sensitive=False)
)
@click.option("--phone", help="Of this phone only (254…).")
@click.option("--order", help="Every attempt of this order of the merchant's.")
@click.option(
    "--stuck", is_flag=True, help="Only those that need manual review: attention, or a conflict."
)
@click.option("--cursor", help="Continue a listing.")
@older_option
@limit_option
@output_option
def list_(  # noqa: PLR0913, PLR0917 - each is an option
    merchant: str | None,
    status: str | None,
    phone: str | None,
    order: str | None,
    stuck: bool,
    cursor: str | None,
    older_than: datetime | None,
    limit: int,
    output: str,
) -> None:
    """List payments, newest first.

    Example: mpesa-gateway transactions list --stuck
    """
    wanted = Filter(
        merchant=merchant,
        status=Status(status.upper()) if status else None,
        phone=parse_phone(phone) if phone else None,
        order_id=parse_order_id(order) if order is not None else None,
        created_before=older_than,
        needs_person=stuck,
        limit=limit,
    )
    with open_database() as (_, pool):
        before = reading.parse_cursor(cursor) if cursor else None
        page = reading.list_transactions(pool, wanted, before)
        conflicts = reading.list_open_conflicts(pool, page["items"])
    rows = [
        {**it, "phone": masked(it["phone"]), "why": _why(it, conflicts)} for it in page["items"]
    ]
    print_list(rows, COLUMNS, output, kind="transaction", document=page)
    if page["next"] and output in ("table", "wide"):
        click.echo(f"More: mpesa-gateway transactions list --cursor {page['next']}")


_RECEIPT_RECORDED = {
    "added": "The receipt is recorded; the webhook transaction.updated is on its way.",
    "conflict": (
        "The payment stays FAILED: the receipt is recorded as the conflict paid_after_failed, and"
        " the webhook transaction.conflict is on its way."
    ),
    "known": "This receipt was recorded before; its conflict is in `transactions show`.",
}


def _why(item: dict[str, Any], conflicts: dict[str, str]) -> str | None:
    if item["transaction_id"] in conflicts:
        return f"open conflict: {conflicts[item['transaction_id']]}"
    if item["attention"]:
        return str(item["attention"])
    return item["failure"]["reason"] if item["failure"] else None


@transactions.command()
@click.argument("transaction")
@json_option
def show(transaction: str, as_json: bool) -> None:
    """Show one payment: its state, who said what and when, and what to do next.

    TRANSACTION is its id or the last 8 characters of it, a receipt, an idempotency key or a
    CheckoutRequestID.

    Example: mpesa-gateway transactions show UJ22T8IYOU
    """
    with open_database() as (_, pool):
        view = timeline.read_history(pool, find_transaction(pool, transaction))
    if as_json:
        print_json(view)
    else:
        print_payment(view)


@transactions.command()
@click.argument("transaction_id")
@click.option("--by", "person", required=True, help="Who decides; it is stored.")
@click.option("--reason", required=True, help="Why, for whoever reads it later; it is stored.")
@click.option(
    "--status",
    type=click.Choice([Status.COMPLETED.value, Status.FAILED.value], case_sensitive=False),
    help="How a pending payment ended. Without it: close conflicts, or leave a note.",
)
@click.option(
    "--receipt",
    help="The receipt number on the M-PESA statement; COMPLETED needs it. Without --status: what"
    " the statement shows for a payment that has ended.",
)
@json_option
def resolve(
    transaction_id: str,
    person: str,
    reason: str,
    status: str | None,
    receipt: str | None,
    as_json: bool,
) -> None:
    """Close a payment's conflicts, or end one that needs manual review. A final state never moves.

    The merchant is told of an end by webhook, as of every other one. Compare with the M-PESA
    statement first. A receipt without --status is added to a COMPLETED payment that has none, and
    is recorded as a conflict of a FAILED one.

    Example: mpesa-gateway transactions resolve ID --by wanjiru --reason "on the statement"
    --status COMPLETED --receipt UJ22T8IYOU
    """
    public_id = parse_id(transaction_id)
    wanted = Status(status.upper()) if status else None
    resolution = parse_resolution(person, reason, wanted, receipt)
    with open_database() as (config, pool):
        resolved = resolve_transaction(pool, public_id, resolution, utc_now())
        wake_workers(config, resolved.effects.work)
        view = timeline.read_history(pool, public_id)
    if as_json:
        print_json(view)
        return
    for kind in resolved.closed:
        click.echo(f"Conflict {kind} is closed.")
    if resolved.receipt is not None:
        click.echo(_RECEIPT_RECORDED[resolved.receipt])
    for ended in resolved.effects.ended:
        click.echo(f"The transaction is {ended.status}; its webhook is on its way.")
    if resolved.noted:
        click.echo("Noted. The transaction still needs manual review; --status ends it.")

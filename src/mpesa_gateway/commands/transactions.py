"""`mpesa-gateway transactions list`, `show` and `resolve`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from mpesa_gateway.commands.output import (
    json_option,
    limit_option,
    masked,
    older_option,
    open_database,
    parse_id,
    print_json,
    print_table,
    wake_workers,
)
from mpesa_gateway.domain.phone import parse_phone
from mpesa_gateway.domain.resolution import parse_resolution
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.services import utc_now
from mpesa_gateway.store.transactions import Filter
from mpesa_gateway.usecases import reading, timeline
from mpesa_gateway.usecases.resolutions import resolve_transaction


@click.group()
def transactions() -> None:
    """Payments: what was asked for, and how it ended."""


@transactions.command("list")
@click.option("--merchant", help="Of this merchant only.")
@click.option("--status", type=click.Choice([status.value for status in Status]))
@click.option("--phone", help="Of this phone only (254…).")
@click.option(
    "--stuck", is_flag=True, help="Only those that need a person: attention, or a conflict."
)
@click.option("--cursor", help="Continue a listing.")
@older_option
@limit_option
@json_option
def list_(
    merchant: str | None,
    status: str | None,
    phone: str | None,
    stuck: bool,
    cursor: str | None,
    older_than: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Newest first."""
    wanted = Filter(
        merchant=merchant,
        status=Status(status) if status else None,
        phone=parse_phone(phone) if phone else None,
        created_before=older_than,
        needs_person=stuck,
        before_row=reading.parse_cursor(cursor) if cursor else None,
        limit=limit,
    )
    with open_database() as (_, pool):
        page = reading.list_transactions(pool, wanted)
        conflicts = reading.list_open_conflicts(pool, page["items"])
    if as_json:
        print_json(page)
        return
    print_table(
        "Transactions",
        ["transaction", "created", "merchant", "phone", "KES", "status", "push", "receipt", "why"],
        [
            [
                item["transaction_id"],
                item["created_at"],
                item["merchant"],
                masked(item["phone"]),
                item["amount"],
                item["status"],
                item["push"],
                item["receipt"],
                _why(item, conflicts),
            ]
            for item in page["items"]
        ],
    )
    if page["next"]:
        click.echo(f"more: --cursor {page['next']}")


def _why(item: dict[str, Any], conflicts: dict[str, str]) -> str | None:
    if item["transaction_id"] in conflicts:
        return f"open conflict: {conflicts[item['transaction_id']]}"
    if item["attention"]:
        return str(item["attention"])
    return item["failure"]["reason"] if item["failure"] else None


@transactions.command()
@click.argument("transaction_id")
@json_option
def show(transaction_id: str, as_json: bool) -> None:
    """One payment: its state, and who said what and when, webhooks included."""
    public_id = parse_id(transaction_id)
    with open_database() as (_, pool):
        view = timeline.read_history(pool, public_id)
    if as_json:
        print_json(view)
    else:
        _print(view)


@transactions.command()
@click.argument("transaction_id")
@click.option("--by", "person", required=True, help="Who decides; it is kept.")
@click.option("--reason", required=True, help="Why, for whoever reads it later; it is kept.")
@click.option(
    "--status",
    type=click.Choice([Status.COMPLETED.value, Status.FAILED.value]),
    help="How a pending payment ended. Without it: close conflicts, or leave a note.",
)
@click.option("--receipt", help="The receipt number on the M-PESA statement; COMPLETED needs it.")
@json_option
def resolve(
    transaction_id: str,
    person: str,
    reason: str,
    status: str | None,
    receipt: str | None,
    as_json: bool,
) -> None:
    """Close a payment's conflicts, or end one that asks for a person. A final state never moves.

    The merchant is told of an end by webhook, as of every other one. Compare with the M-PESA
    statement first.
    """
    public_id = parse_id(transaction_id)
    resolution = parse_resolution(person, reason, Status(status) if status else None, receipt)
    with open_database() as (config, pool):
        resolved = resolve_transaction(pool, public_id, resolution, utc_now())
        wake_workers(config, resolved.effects.work)
        view = timeline.read_history(pool, public_id)
    if as_json:
        print_json(view)
        return
    for kind in resolved.closed:
        click.echo(f"Conflict {kind} is closed.")
    for ended in resolved.effects.ended:
        click.echo(f"The transaction is {ended.status}; its webhook is on its way.")
    if resolved.noted:
        click.echo("Noted. The transaction still asks for a person; --status ends it.")


def _print(view: dict[str, Any]) -> None:
    result, step = view["result"] or {}, view["next_step"]
    facts = {
        "status": view["status"],
        "amount": f"KES {view['amount']}",
        "phone": masked(view["phone"]),
        "merchant": view["merchant"],
        "push": view["push"],
        "receipt": view["receipt"],
        "result": " ".join(filter(None, [result["code"], result["reason"]])) if result else None,
        "settled by": view["settled_by"],
        "attention": view["attention"],
        "next step": step and " ".join(filter(None, [step["action"], step["at"]])),
        **{f"conflict {it['kind']}": _conflict(it) for it in view["conflicts"]},
    }
    print_table(
        f"Transaction {view['transaction_id']}",
        ["", ""],
        [fact for fact in facts.items() if fact[1] is not None],
    )
    print_table(
        "Who said what",
        ["at", "who", "what", "detail"],
        [[it["at"], it["who"], it["what"], _detail(it["detail"])] for it in view["timeline"]],
    )


def _conflict(conflict: dict[str, Any]) -> str:
    if conflict["closed_at"] is None:
        return f"open since {conflict['opened_at']}, receipt {conflict['receipt'] or 'none'}"
    return f"closed at {conflict['closed_at']}: {conflict['closing_note']}"


def _detail(detail: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in detail.items())

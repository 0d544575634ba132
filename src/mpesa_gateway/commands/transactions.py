"""`mpesa-gateway transactions list` and `show`."""

from __future__ import annotations

from typing import Any

import click

from mpesa_gateway.commands.output import (
    json_option,
    limit_option,
    masked,
    open_database,
    parse_id,
    print_json,
    print_table,
)
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.domain.view import time_text
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.store import events
from mpesa_gateway.store import transactions as store
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.transactions import Filter
from mpesa_gateway.usecases import reading


@click.group()
def transactions() -> None:
    """Payments: what was asked for, and how it ended."""


@transactions.command("list")
@click.option("--merchant", help="Of this merchant only.")
@click.option("--status", type=click.Choice([status.value for status in Status]))
@click.option("--phone", help="Of this phone only (254…).")
@click.option("--stuck", is_flag=True, help="Only those that need a person.")
@click.option("--cursor", help="Continue a listing.")
@limit_option
@json_option
def list_(
    merchant: str | None,
    status: str | None,
    phone: str | None,
    stuck: bool,
    cursor: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Newest first."""
    wanted = Filter(
        merchant=merchant,
        status=Status(status) if status else None,
        phone=phone,
        needs_attention=stuck,
        before_row=reading.parse_cursor(cursor) if cursor else None,
        limit=limit,
    )
    with open_database() as (_, pool):
        page = reading.list_transactions(pool, wanted)
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
                _why(item),
            ]
            for item in page["items"]
        ],
    )
    if page["next"]:
        click.echo(f"more: --cursor {page['next']}")


def _why(item: dict[str, Any]) -> str | None:
    if item["attention"]:
        return str(item["attention"])
    return item["failure"]["reason"] if item["failure"] else None


@transactions.command()
@click.argument("transaction_id")
@json_option
def show(transaction_id: str, as_json: bool) -> None:
    """One payment: its state, who said what and when, its webhooks."""
    with open_database() as (_, pool):
        view = _everything(pool, transaction_id)
    if as_json:
        print_json(view)
        return
    result = view["result"] or {}
    facts = {
        "status": view["status"],
        "amount": f"KES {view['amount']}",
        "phone": masked(view["phone"]),
        "merchant": view["merchant"],
        "push": view["push"],
        "receipt": view["receipt"],
        "result": f"{result['code']} {result['reason']}" if result else None,
        "attention": view["attention"],
        "next step": view["next_step"] and view["next_step"]["action"],
    }
    print_table(f"Transaction {view['transaction_id']}", ["", ""], list(facts.items()))
    print_table(
        "Who said what",
        ["at", "who", "what", "detail"],
        [
            [event["at"], event["source"], event["kind"], _detail(event["detail"])]
            for event in view["events"]
        ],
    )
    print_table(
        "Webhooks",
        ["webhook", "type", "state", "attempt", "outcome", "status", "ms", "at", "error"],
        [
            [
                delivery["id"],
                delivery["type"],
                delivery["state"],
                attempt.get("attempt_number"),
                attempt.get("outcome"),
                attempt.get("response_status_code"),
                attempt.get("response_time_ms"),
                attempt.get("attempted_at"),
                attempt.get("error_message"),
            ]
            for delivery in view["deliveries"]
            for attempt in delivery["attempts"] or [{}]
        ],
    )


def _detail(detail: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in detail.items())


def _everything(pool: Pool, transaction_id: str) -> dict[str, Any]:
    """The API's object with events and deliveries. Raises NotFoundError."""
    public_id = parse_id(transaction_id)
    view = reading.read_transaction(pool, None, public_id)
    view["deliveries"] = reading.read_deliveries(pool, None, public_id)["items"]
    with pool.connection("command.history") as conn:
        transaction = store.find(conn, None, public_id)
        if transaction is None:
            raise NotFoundError("there is no such transaction")
        steps = events.list_of_transaction(conn, transaction.row)
    view["events"] = [
        {
            "at": time_text(event.at),
            "source": event.source,
            "kind": event.kind,
            "detail": event.detail,
        }
        for event in steps
    ]
    return view

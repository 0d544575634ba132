"""`mpesa-gateway callbacks list`, `show` and `requeue`."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import click

from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.output import (
    json_option,
    limit_option,
    older_option,
    open_database,
    output_option,
    parse_id,
    print_json,
    wake_workers,
)
from mpesa_gateway.commands.tables import Column, clock_time, id_suffix, print_facts, print_list
from mpesa_gateway.domain.representation import time_text
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.store import callbacks as store
from mpesa_gateway.store import transactions
from mpesa_gateway.store.callbacks import CallbackRow
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.usecases.callback_pages import read_callback

COLUMNS = (
    Column("ID", "id"),
    Column("RECEIVED", "received_at", short=clock_time),
    Column("PATH", "path"),
    Column("FROM", "source"),
    Column("COPIES", "copies", narrow=False),
    Column("STATE", "state"),
    Column("OUTCOME", "outcome"),
    Column("TRANSACTION", "transaction_id", short=id_suffix),
    Column("ORPHAN OF", "orphan_of", narrow=False),
)


@click.group()
def callbacks() -> None:
    """What Safaricom sent, and what became of it."""


@callbacks.command("list")
@click.option(
    "--state",
    type=click.Choice(["RECEIVED", "HELD", "APPLIED", "QUARANTINED"], case_sensitive=False),
)
@click.option("--quarantined", is_flag=True, help="The same as --state QUARANTINED.")
@click.option("--transaction", help="Of this transaction only.")
@older_option
@limit_option
@output_option
def list_(
    state: str | None,
    quarantined: bool,
    transaction: str | None,
    older_than: datetime | None,
    limit: int,
    output: str,
) -> None:
    """List callbacks, newest first.

    Example: mpesa-gateway callbacks list --quarantined
    """
    wanted = "QUARANTINED" if quarantined else state and state.upper()
    public_id = parse_id(transaction) if transaction else None
    with open_database() as (_, pool), pool.connection("command.callbacks") as conn:
        found = _find(conn, wanted, public_id, older_than, limit)
    rows = [_view(row) for row in found]
    print_list(rows, COLUMNS, output, kind="callback", document={"items": rows})


def _find(
    conn: Connection,
    state: str | None,
    public_id: uuid.UUID | None,
    before: datetime | None,
    limit: int,
) -> list[CallbackRow]:
    if public_id is None:
        return store.list_newest(conn, state=state, before=before, limit=limit)
    transaction = transactions.find(conn, None, public_id)
    if transaction is None:
        found = store.list_orphans(conn, public_id)
        if not found:
            raise NotFoundError("there is no such transaction")
    else:
        found = store.list_of_transaction(conn, transaction.row)
    return [row for row in found if state in (None, row.state)][:limit]


def _view(row: CallbackRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "transaction_id": str(row.transaction_id) if row.transaction_id else None,
        "orphan_of": str(row.orphan_of) if row.orphan_of else None,
        "path": "token" if row.by_token or row.orphan_of else "plain",
        "source": row.source,
        "received_at": time_text(row.received_at),
        "copies": row.copies,
        "state": row.state,
        "outcome": row.outcome,
        "attempts": row.attempts,
        "applied_at": time_text(row.applied_at),
        "requeued_by": row.requeued_by,
        "size": row.size,
        "body_removed_at": time_text(row.body_removed_at),
    }


@callbacks.command()
@click.argument("callback_id", type=int)
@click.option("--reveal", is_flag=True, help="Show whole phone numbers; needs --by.")
@click.option("--by", "person", help="Who looks; with --reveal it is stored.")
@json_option
def show(callback_id: int, reveal: bool, person: str | None, as_json: bool) -> None:
    """Show one callback: amount, receipt, and the body as it came.

    Phone numbers are masked. With --reveal they are not, and who looked is stored; `transactions
    show` tells of it.

    Example: mpesa-gateway callbacks show 42
    """
    if reveal and not person:
        raise click.UsageError("--reveal needs --by: who looks is stored")
    with open_database() as (_, pool):
        page = read_callback(pool, callback_id, utc_now(), revealed_by=person if reveal else None)
    view = {**_view(page.row), **page.said, "body": page.body, "reveals": page.reveals}
    if as_json:
        print_json(view)
        return
    facts = {name: value for name, value in view.items() if name not in ("id", "body", "reveals")}
    print_facts(f"Callback {callback_id}", facts)
    click.echo(f"\n{page.body}")
    if page.row.state == "QUARANTINED":
        click.echo(f"\nNext\n  mpesa-gateway callbacks requeue {callback_id} --by YOUR_NAME")


@callbacks.command()
@click.argument("callback_ids", nargs=-1, required=True, type=int)
@click.option("--by", "person", required=True, help="Who looked at them; it is stored.")
@json_option
def requeue(callback_ids: tuple[int, ...], person: str, as_json: bool) -> None:
    """Apply quarantined callbacks again, although their path or address may not settle.

    Use it after you have looked at the callback and removed its cause. Amount, receipt and
    CheckoutRequestID are checked again.

    Example: mpesa-gateway callbacks requeue 42 --by wanjiru
    """
    now = utc_now()
    with open_database() as (config, pool):
        with pool.transaction("command.requeue") as conn:
            for callback_id in callback_ids:
                if not store.requeue(conn, callback_id, person, now):
                    raise NotFoundError(f"callback {callback_id} is not in quarantine")
        wake_workers(config, [Work(WorkKind.CALLBACK, it) for it in callback_ids])
    if as_json:
        print_json({"requeued": list(callback_ids)})
    else:
        click.echo(
            f"{len(callback_ids)} requeued; `mpesa-gateway callbacks list` shows what becomes"
            " of them."
        )

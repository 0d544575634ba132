"""`mpesa-gateway callbacks list` and `requeue`."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import click

from mpesa_gateway.commands.output import (
    json_option,
    limit_option,
    older_option,
    open_database,
    parse_id,
    print_json,
    print_table,
    wake_workers,
)
from mpesa_gateway.domain.view import time_text
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.services import utc_now
from mpesa_gateway.store import callbacks as store
from mpesa_gateway.store import transactions
from mpesa_gateway.store.callbacks import CallbackRow
from mpesa_gateway.store.pool import Connection


@click.group()
def callbacks() -> None:
    """What Safaricom sent, and what became of it."""


@callbacks.command("list")
@click.option("--state", type=click.Choice(["RECEIVED", "HELD", "APPLIED", "QUARANTINED"]))
@click.option("--quarantined", is_flag=True, help="The same as --state QUARANTINED.")
@click.option("--transaction", help="Of this transaction only.")
@older_option
@limit_option
@json_option
def list_(
    state: str | None,
    quarantined: bool,
    transaction: str | None,
    older_than: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Newest first."""
    wanted = "QUARANTINED" if quarantined else state
    public_id = parse_id(transaction) if transaction else None
    with open_database() as (_, pool), pool.connection("command.callbacks") as conn:
        found = _find(conn, wanted, public_id, older_than, limit)
    if as_json:
        print_json({"items": [_view(row) for row in found]})
        return
    print_table(
        "Callbacks",
        ["id", "received", "path", "from", "copies", "state", "outcome", "transaction"],
        [
            [
                row.id,
                time_text(row.received_at),
                "token" if row.by_token else "plain",
                row.source,
                row.copies,
                row.state,
                row.outcome,
                row.transaction_id,
            ]
            for row in found
        ],
    )


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
        raise NotFoundError("there is no such transaction")
    found = store.list_of_transaction(conn, transaction.row)
    return [row for row in found if state in (None, row.state)][:limit]


def _view(row: CallbackRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "transaction_id": str(row.transaction_id) if row.transaction_id else None,
        "path": "token" if row.by_token else "plain",
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
@click.argument("callback_ids", nargs=-1, required=True, type=int)
@click.option("--by", "person", required=True, help="Who looked at them; it is kept.")
@json_option
def requeue(callback_ids: tuple[int, ...], person: str, as_json: bool) -> None:
    """Apply quarantined callbacks again, although their path or address may not settle.

    Use it after you have looked at the callback and mended its cause. Amount, receipt and
    CheckoutRequestID are checked again.
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
        click.echo(f"{len(callback_ids)} requeued; `callbacks list` shows what becomes of them.")

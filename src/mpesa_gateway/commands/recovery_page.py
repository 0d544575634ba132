"""What `mpesa-gateway recover` shows: holds, lost rows, orphans, and a statement's open lines."""

from __future__ import annotations

from typing import Any

import click

from mpesa_gateway.commands.tables import Column, table_lines
from mpesa_gateway.domain.representation import time_text
from mpesa_gateway.store import callbacks, recovery
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.store.recovery import Hold, LostWebhook
from mpesa_gateway.usecases.statements import Comparison, OpenLine

HOLDS = 20
_HOLD_COLUMNS = (
    Column("OPENED", "opened_at"),
    Column("BY", "opened_by"),
    Column("ACCEPTED", "accepted_at"),
    Column("BY", "accepted_by"),
    Column("REASON", "reason"),
)
_LOST_COLUMNS = (
    Column("NOTICED", "noticed_at"),
    Column("KIND", "kind"),
    Column("WRITTEN AGAIN", "written_again"),
    Column("PAYMENT", "payment"),
    Column("ABOUT", "about", narrow=False),
)
_ORPHAN_COLUMNS = (
    Column("CALLBACK", "id"),
    Column("RECEIVED", "received_at"),
    Column("COPIES", "copies", narrow=False),
    Column("PAYMENT", "payment"),
)
_WEBHOOK_COLUMNS = (
    Column("PAYMENT", "payment"),
    Column("MERCHANT", "merchant"),
    Column("KIND", "type"),
    Column("RECEIPT", "receipt"),
    Column("PAYMENT NOW", "now"),
    Column("NOTICED", "noticed_at", narrow=False),
    Column("WEBHOOK ID", "webhook_id", narrow=False),
)


def read_report(conn: Connection, comparison: Comparison | None, limit: int) -> dict[str, Any]:
    """Read the whole report. Each list has its newest `limit` rows; a statement's has all."""
    holds = recovery.list_holds(conn, HOLDS)
    held_since = min((it.opened_at for it in holds if it.accepted_at is None), default=None)
    orphans = callbacks.list_unadopted(conn, limit)
    return {
        "held": held_since is not None,
        "held_since": time_text(held_since),
        "holds": [_hold_view(it) for it in holds],
        "lost": recovery.count_lost(conn),
        "lost_rows": [
            {
                "kind": it.kind,
                "payment": str(it.payment) if it.payment else None,
                "about": it.about,
                "written_again": it.written_again,
                "noticed_at": time_text(it.noticed_at),
            }
            for it in recovery.list_lost(conn, limit)
        ],
        "lost_webhooks": [_webhook_view(it) for it in recovery.list_lost_webhooks(conn, limit)],
        "orphans": callbacks.count_unadopted(conn),
        "orphan_callbacks": [
            {
                "id": it.id,
                "payment": str(it.orphan_of),
                "received_at": time_text(it.received_at),
                "copies": it.copies,
            }
            for it in orphans
        ],
        "statement": None if comparison is None else _comparison_view(comparison),
    }


def _webhook_view(webhook: LostWebhook) -> dict[str, Any]:
    return {
        "payment": str(webhook.payment),
        "merchant": webhook.merchant,
        "type": webhook.type,
        "receipt": webhook.receipt,
        "webhook_id": webhook.webhook_id,
        "noticed_at": time_text(webhook.noticed_at),
        "payment_status": webhook.payment_status,
    }


def _comparison_view(comparison: Comparison) -> dict[str, Any]:
    return {
        "matched": comparison.matched,
        "orphans": comparison.orphans,
        "other_rows": comparison.other_rows,
        "open": [_line_view(it) for it in comparison.open_lines],
    }


def _line_view(line: OpenLine) -> dict[str, Any]:
    paid = line.paid
    return {
        "receipt": paid.receipt,
        "completed_at": time_text(paid.completed_at),
        "amount": f"{paid.amount.normalize():f}",
        "phone": None if paid.payer is None else str(paid.payer),
        "account": paid.account,
        "finding": line.finding.value,
        "payments": [str(it) for it in line.payments],
        "todo": line.todo,
    }


def _hold_view(hold: Hold) -> dict[str, Any]:
    return {
        "id": str(hold.id),
        "opened_at": time_text(hold.opened_at),
        "opened_by": hold.opened_by,
        "reason": hold.reason,
        "accepted_at": time_text(hold.accepted_at),
        "accepted_by": hold.accepted_by,
        "accepted_reason": hold.accepted_reason,
    }


def print_report(report: dict[str, Any]) -> None:
    """Print it for an operator."""
    if report["held"]:
        click.echo(f"New payments are held since {report['held_since']}.")
        click.echo("Once you have compared what is below with the M-PESA statement:")
        click.echo("  mpesa-gateway recover --accept --by YOUR_NAME --reason WHY")
    else:
        click.echo("New payments may start: there is no open hold.")
    for kind, counts in report["lost"].items():
        again, gone = counts["written_again"], counts["not_written_again"]
        click.echo(f"Lost {kind}s: {again} written again, {gone} not.")
    click.echo(
        f"Orphans, callbacks of payments that are not in this database: {report['orphans']}."
    )
    told = [it | {"now": it["payment_status"] or "not here"} for it in report["lost_webhooks"]]
    for title, rows, columns in (
        ("Holds", report["holds"], _HOLD_COLUMNS),
        ("Lost", report["lost_rows"], _LOST_COLUMNS),
        ("Webhooks that were delivered, and that the database had lost", told, _WEBHOOK_COLUMNS),
        ("Orphans", report["orphan_callbacks"], _ORPHAN_COLUMNS),
    ):
        if rows:
            click.echo(f"\n{title}")
            for line in table_lines(rows, columns, wide=False):
                click.echo(line)
    if report["statement"] is not None:
        _print_statement(report["statement"])


def _print_statement(compared: dict[str, Any]) -> None:
    lines = compared["open"]
    click.echo(
        f"\nStatement: {compared['matched']} payments are in the database,"
        f" {compared['orphans']} are orphans, {len(lines)} need you;"
        f" {compared['other_rows']} other rows."
    )
    for line in lines:
        facts = (line["receipt"], line["completed_at"], f"KES {line['amount']}", line["phone"])
        account = f"account {line['account']}" if line["account"] else None
        click.echo("  ".join(it for it in (*facts, account) if it))
        click.echo(f"    {line['todo']}")

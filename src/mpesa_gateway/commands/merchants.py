"""`mpesa-gateway merchants list`."""

from __future__ import annotations

from typing import Any

import click

from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.output import (
    open_database,
    output_option,
    print_table,
    read_merchants,
)
from mpesa_gateway.commands.tables import Column, print_list
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.production import PRODUCTION_URL, SANDBOX_URL
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.usecases.ownership import adopt_history

_ENVIRONMENTS = {PRODUCTION_URL: "production", SANDBOX_URL: "sandbox"}

COLUMNS = (
    Column("NAME", "name"),
    Column("SHORT CODE", "short_code"),
    Column("TILL", "till_number"),
    Column("ENVIRONMENT", "environment"),
    Column("STATE", "state"),
    Column("LOADED FROM", "loaded_from"),
)


@click.group()
def merchants() -> None:
    """Who may take payments here."""


@merchants.command("list")
@output_option
def list_(output: str) -> None:
    """List every merchant, its source, and the files that cannot be used. Never a secret.

    Reads the settings and files afresh. A running process keeps the last good version of a
    merchant whose file is broken now; here that merchant is missing and its file an error.

    Example: mpesa-gateway merchants list
    """
    _, snapshot = read_merchants()
    items = [_view(snapshot, snapshot.by_name[name]) for name in sorted(snapshot.by_name)]
    rows = [{**item, "state": _state(item)} for item in items]
    document = {"items": items, "errors": dict(snapshot.errors)}
    print_list(rows, COLUMNS, output, kind="merchant", document=document)
    if snapshot.errors and output in ("table", "wide"):
        errors = sorted(snapshot.errors.items())
        print_table("Files that cannot be used", ["file", "problem"], errors)


@merchants.command()
@click.argument("name")
@click.option("--by", required=True, help="Who decides it; stored.")
@click.option("--reason", required=True, help="Why, a ticket for one; stored.")
def adopt(name: str, by: str, reason: str) -> None:
    """Hand the history of a name over to the merchant that has the name now.

    A MerchantConfig that was deleted and made again sees none of the payments of the one before,
    because the name may have been given to somebody else. Run this when it is the same merchant:
    payments, idempotency keys and undelivered webhooks of before become its own.

    Example: mpesa-gateway merchants adopt shops/duka --by jane --reason OPS-71
    """
    _, snapshot = read_merchants()
    merchant = _merchant_of(snapshot, name)
    assert merchant.uid is not None
    with open_database() as (_, pool):
        done = adopt_history(pool, name, merchant.uid, by=by, reason=reason, now=utc_now())
    click.echo(f"The history of {name} belongs to its present MerchantConfig ({merchant.uid}).")
    click.echo(f"Its own payments since then joined it: {done.moved}.")
    click.echo("Processes know within 10 s; run it again then, for what was paid in between.")
    if done.left:
        raise click.ClickException(
            f"{done.left} payments stay apart: their idempotency keys stand in both histories."
            f" Find them with `mpesa-gateway transactions list --merchant {name}#{merchant.uid}`."
        )


def _merchant_of(snapshot: Snapshot, name: str) -> Merchant:
    merchant = snapshot.by_name.get(name)
    if merchant is None:
        raise NotFoundError(f"no merchant has the name {name!r} now")
    if merchant.uid is None:
        raise NotFoundError(f"{name} has no uid: its history never changes hands")
    return merchant


def _view(snapshot: Snapshot, merchant: Merchant) -> dict[str, Any]:
    return {
        "name": merchant.name,
        "short_code": merchant.short_code,
        "till_number": merchant.till_number,
        "environment": _ENVIRONMENTS.get(merchant.base_url, merchant.base_url),
        "base_url": merchant.base_url,
        "suspended": merchant.suspended,
        "draining": merchant.draining,
        "api_keys": len(merchant.api_key_sha256),
        "webhook_secrets": len(merchant.webhook_secrets),
        "loaded_from": snapshot.files.get(merchant.name, "environment"),
    }


def _state(item: dict[str, Any]) -> str:
    if item["draining"]:
        return "draining"
    return "suspended" if item["suspended"] else "active"

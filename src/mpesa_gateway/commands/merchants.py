"""`mpesa-gateway merchants list`."""

from __future__ import annotations

import os
from typing import Any

import click

from mpesa_gateway.commands.output import json_option, print_json, print_table
from mpesa_gateway.config import Config, Needs
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.log import configure_logging
from mpesa_gateway.merchants import MerchantDirectory, Snapshot
from mpesa_gateway.settings import PRODUCTION_URL, SANDBOX_URL

_ENVIRONMENTS = {PRODUCTION_URL: "production", SANDBOX_URL: "sandbox"}


@click.group()
def merchants() -> None:
    """Who may take payments here."""


@merchants.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every merchant, where it is loaded from, and the files that cannot be used. Never a secret.

    Reads the settings and files afresh. A running process keeps the last good version of a
    merchant whose file is broken now; here that merchant is missing and its file an error.
    """
    config = Config.from_env(os.environ, Needs.MERCHANTS)
    configure_logging(config.log_format, "critical")
    directory = MerchantDirectory(config)
    try:
        directory.refresh()
    except OSError as error:
        raise click.ClickException(
            f"MPESA_MERCHANTS_DIR cannot be read: {type(error).__name__}"
        ) from error
    snapshot = directory.current()
    items = [_view(snapshot, snapshot.by_name[name]) for name in sorted(snapshot.by_name)]
    if as_json:
        print_json({"items": items, "errors": dict(snapshot.errors)})
        return
    print_table(
        "Merchants",
        ["merchant", "short code", "till", "environment", "state", "loaded from"],
        [
            [
                item["name"],
                item["short_code"],
                item["till_number"],
                item["environment"],
                _state(item),
                item["loaded_from"],
            ]
            for item in items
        ],
    )
    if snapshot.errors:
        rows = [[file, problem] for file, problem in sorted(snapshot.errors.items())]
        print_table("Files that cannot be used", ["file", "problem"], rows)


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

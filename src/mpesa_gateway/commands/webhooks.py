"""`mpesa-gateway webhooks secret`, `verify` and `test`."""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mpesa_gateway.commands.output import json_option, print_json, read_merchants
from mpesa_gateway.config import Config
from mpesa_gateway.domain.delivery import Attempt
from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.merchant import DEFAULT_MERCHANT, Merchant
from mpesa_gateway.domain.signature import (
    SECRET_PREFIX,
    SignatureError,
    signing_key,
    verify_webhook,
    webhook_headers,
)
from mpesa_gateway.errors import InvalidInputError

MAX_FILE_BYTES = 1024 * 1024
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def webhooks() -> None:
    """Secrets and signatures of webhooks, and a test of an endpoint."""


@webhooks.command()
@click.argument("merchant", default=DEFAULT_MERCHANT)
def secret(merchant: str) -> None:
    """Print the secret that signs a merchant's webhooks, in `whsec_` form.

    Standard Webhooks libraries take only that form. Without MERCHANT: of `default`.

    Example: mpesa-gateway webhooks secret shop/duka
    """
    _, found = _merchant(merchant)
    key = signing_key(found.webhook_secrets[0])
    click.echo(SECRET_PREFIX + base64.b64encode(key).decode())


@webhooks.command()
@click.option(
    "--secret", required=True, envvar="WEBHOOK_SECRET", help="The webhook secret, in either form."
)
@click.option("--headers", "headers_file", required=True, type=_FILE, help="`Name: value` lines.")
@click.option("--body", "body_file", required=True, type=_FILE, help="The raw body, unchanged.")
@click.option("--any-age", is_flag=True, help="Accept a webhook that is older than five minutes.")
def verify(secret: str, headers_file: Path, body_file: Path, any_age: bool) -> None:
    """Check the signature of a saved webhook; exit status 1 when it is not genuine.

    Example: mpesa-gateway webhooks verify --secret "$WEBHOOK_SECRET" --headers headers.txt
    --body body.json
    """
    headers = _read_headers(_read(headers_file).decode("utf-8", "replace"))
    try:
        verify_webhook(secret, headers, _read(body_file), None if any_age else datetime.now(UTC))
    except SignatureError as error:
        raise click.ClickException(f"the webhook is not genuine: {error}") from error
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--secret") from error
    click.echo(f"The webhook {headers['webhook-id']} is genuine.")


@webhooks.command()
@click.argument("merchant", default=DEFAULT_MERCHANT)
@click.option("--url", help="Send it there instead of to the merchant's own webhook URL.")
@json_option
def test(merchant: str, url: str | None, as_json: bool) -> None:
    """Send a `test.ping` webhook to a merchant's endpoint and show what it answered.

    It is signed like every webhook and belongs to no payment. Exit status 1 unless it was taken.

    Example: mpesa-gateway webhooks test default --url https://shop.example/mpesa
    """
    config, found = _merchant(merchant)
    attempt = _ping(config, found, url, datetime.now(UTC))
    if as_json:
        print_json(_view(attempt))
    else:
        status = attempt.response_status_code or "nothing"
        click.echo(f"The endpoint answered {status} after {attempt.response_time_ms} ms.")
        click.echo(attempt.error_message or "It accepted the webhook.")
    if not attempt.success:
        sys.exit(1)


def _view(attempt: Attempt) -> dict[str, Any]:
    return {
        "outcome": attempt.outcome.value,
        "success": attempt.success,
        "response_status_code": attempt.response_status_code,
        "response_time_ms": attempt.response_time_ms,
        "error_message": attempt.error_message,
        "response_body": attempt.response_body,
    }


def _ping(config: Config, merchant: Merchant, url: str | None, now: datetime) -> Attempt:
    """One attempt through the same egress guard as every webhook."""
    # Only `test` needs an HTTP client, which takes a third of a second to import.
    from mpesa_gateway.clients.egress import Guard, new_session  # noqa: PLC0415
    from mpesa_gateway.clients.webhooks import WebhookClient  # noqa: PLC0415

    target = url or merchant.webhook_url
    if target is None:
        raise click.UsageError(f"{merchant.name} has no webhook URL of its own; give --url")
    try:
        parse_endpoint(
            target,
            allow_private=config.webhook_allow_private,
            allowed_hosts=merchant.allowed_hosts if url else (),
        )
    except InvalidInputError as error:
        raise click.ClickException(
            "; ".join(f"{it.field} {it.message}" for it in error.problems)
            + ". For development, MPESA_WEBHOOK_ALLOW_PRIVATE=true allows private addresses."
        ) from error
    body = json.dumps(
        {"type": "test.ping", "merchant": merchant.name, "timestamp": now.isoformat()}
    ).encode()
    webhook_id = f"msg_test_{now:%Y%m%dT%H%M%S%f}"
    guard = Guard(allow_private=config.webhook_allow_private, denied=config.webhook_denied_cidrs)
    client = WebhookClient(new_session(guard, user_agent="mpesa-gateway"))
    headers = webhook_headers(webhook_id, merchant.webhook_secrets, body, now)
    return client.post(target, body, headers, now)


def _merchant(name: str) -> tuple[Config, Merchant]:
    """The merchant of that name, from the environment or MPESA_MERCHANTS_DIR."""
    config, snapshot = read_merchants()
    merchant = snapshot.by_name.get(name)
    if merchant is None:
        raise click.ClickException(
            f"there is no merchant {name!r}; `mpesa-gateway merchants list` names them all"
        )
    return config, merchant


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise click.ClickException(f"{path.name} is larger than 1 MiB")
    return content


def _read_headers(text: str) -> dict[str, str]:
    """Names in lower case. What is no header, such as the request line, is skipped."""
    if text.lstrip().startswith("{"):
        try:
            return {str(name).lower(): str(value) for name, value in json.loads(text).items()}
        except ValueError as error:
            raise click.BadParameter(
                f"the file is not JSON: {error}", param_hint="--headers"
            ) from error
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}

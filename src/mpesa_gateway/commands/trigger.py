"""`mpesa-gateway trigger`."""

from __future__ import annotations

import time
import uuid
from http.client import HTTPException
from typing import Any

import click

from daraja_simulator.outcomes import BY_NAME
from mpesa_gateway.clients.json_call import call
from mpesa_gateway.commands.dev import API_PORT, SIMULATOR_PORT

# Of `mpesa-gateway dev`, which listens on this machine only.
DEV_API_KEY = "dev-key-for-this-machine-only"
_PREFIX = "25471234"
_LOOK_EVERY_S = 0.3
# Until the callback that the outcome brings; some bring none.
_PATIENCE_S = 30.0


@click.command()
@click.argument("outcome", type=click.Choice(sorted(BY_NAME)), metavar="OUTCOME")
@click.option("--phone", help="The payer; another phone than the outcome's own.")
@click.option("--amount", default=10, show_default=True, type=click.IntRange(1))
@click.option(
    "--api", default=f"http://127.0.0.1:{API_PORT}", show_default=True, help="The gateway."
)
@click.option(
    "--api-key", envvar="MPESA_INTERNAL_SECRET", help="Its key; without one, that of `dev`."
)
@click.option(
    "--simulator", default=f"http://127.0.0.1:{SIMULATOR_PORT}", show_default=True,
    help="The stand-in for Safaricom, asked only with --phone.",
)  # fmt: skip
@click.option("--webhook-url", help="Where to tell of it; else the merchant's own endpoint.")
def trigger(
    outcome: str,
    phone: str | None,
    amount: int,
    api: str,
    api_key: str | None,
    simulator: str,
    webhook_url: str | None,
) -> None:
    """Make one payment of that outcome on a simulator, and show how it ends.

    Example: mpesa-gateway trigger cancelled
    """
    key = {"X-Internal-Secret": api_key or DEV_API_KEY}
    body: dict[str, Any] = {
        "amount": amount,
        "phone": phone or _PREFIX + BY_NAME[outcome].digits,
        "idempotency_key": str(uuid.uuid4()),
    }
    if webhook_url:
        body["webhook_url"] = webhook_url
    try:
        if phone:
            call(f"{simulator}/next", "PUT", body={"outcome": outcome}, timeout_s=10)
        made = call(f"{api}/initiate", "POST", headers=key, body=body, timeout_s=35)
        if made.status != 201:
            raise click.ClickException(_refusal(made.status, made.body))
        click.echo(f"Payment {made.body['transaction_id']} of {amount} KES by {body['phone']}.")
        path = f"{api}/transactions/{made.body['transaction_id']}"
        give_up = time.monotonic() + _PATIENCE_S
        view = call(path, headers=key).body
        while _may_move(view) and time.monotonic() < give_up:
            time.sleep(_LOOK_EVERY_S)
            view = call(path, headers=key).body
    except (OSError, HTTPException) as error:
        raise click.ClickException(
            f"{api} does not answer ({error}). Is `mpesa-gateway dev` running? --api names another"
            " gateway."
        ) from error
    click.echo(_ended(view))


def _may_move(view: dict[str, Any]) -> bool:
    """Whether the payment ends without a decision of an operator."""
    return bool(view["status"] == "PENDING" and view["next_step"]["action"] != "person")


def _ended(view: dict[str, Any]) -> str:
    if view["status"] == "COMPLETED":
        return f"It is COMPLETED, receipt {view['receipt'] or 'not known yet'}."
    if view["status"] == "FAILED":
        return f"It has FAILED: {view['failure']['reason']}. {view['result']['message']['en']}"
    step = view["next_step"]
    return f"It is still PENDING, as this outcome may be; next: {step['action']} {step['at'] or ''}"


def _refusal(status: int, problem: Any) -> str:
    if not isinstance(problem, dict):
        return f"the gateway answered {status}"
    fields = "".join(f"; {it['field']} {it['message']}" for it in problem.get("errors", []))
    return f"the gateway answered {status}: {problem.get('detail', '')}{fields}"

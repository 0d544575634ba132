"""The page of one payment: what is known, the timeline, and the command to type next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from mpesa_gateway.commands.output import masked
from mpesa_gateway.commands.tables import Column, print_facts, table_lines

_COLUMNS = (
    Column("AT", "at"),
    Column("ELAPSED", "elapsed"),
    Column("WHO", "who"),
    Column("WHAT", "what"),
    Column("DETAIL", "detail"),
)


def print_payment(view: dict[str, Any]) -> None:
    """Print everything about a payment that an operator asks for first."""
    print_facts(f"Transaction {view['transaction_id']}", _facts(view))
    click.echo("\nTimeline")
    # Whole lines: this page is read and pasted, not scanned.
    for line in table_lines(list(_moments(view)), _COLUMNS, wide=True):
        click.echo(line)
    commands = next_commands(view)
    if commands:
        click.echo("\nNext")
        for command in commands:
            click.echo(f"  {command}")


def next_commands(view: dict[str, Any]) -> list[str]:
    """What an operator may type now, ready to copy; capitals are to be filled in."""
    payment = view["transaction_id"]
    commands = [
        f"mpesa-gateway callbacks show {it['detail']['callback']}"
        for it in view["timeline"]
        if it["who"] == "callback" and it["detail"].get("state") == "QUARANTINED"
    ]
    audit = "--by YOUR_NAME --reason WHY"
    if any(it["closed_at"] is None for it in view["conflicts"]):
        commands.append(f"mpesa-gateway transactions resolve {payment} {audit}")
    elif view["attention"] and view["status"] == "PENDING":
        ended = "--status COMPLETED --receipt RECEIPT"
        commands.append(f"mpesa-gateway transactions resolve {payment} {audit} {ended}")
        commands.append(f"mpesa-gateway transactions resolve {payment} {audit} --status FAILED")
    if any(it["state"] == "EXHAUSTED" for it in view["deliveries"]):
        commands.append(f"mpesa-gateway deliveries redeliver {payment}")
    return list(dict.fromkeys(commands))


def _facts(view: dict[str, Any]) -> dict[str, Any]:
    result, step = view["result"] or {}, view["next_step"]
    message = result.get("message") or {}
    return {
        "status": view["status"],
        "amount": f"KES {view['amount']}",
        "phone": masked(view["phone"]),
        "merchant": view["merchant"],
        "reference": view["account_reference"],
        "order": view["order_id"],
        "created": view["created_at"],
        "finished": _finished(view),
        "push": view["push"],
        "receipt": view["receipt"],
        "result": " ".join(filter(None, [result.get("code"), result.get("reason")])),
        "customer": message.get("en"),
        "settled by": view["settled_by"],
        "attention": view["attention"],
        "next step": step and " ".join(filter(None, [step["action"], step["at"]])),
        "idempotency key": view["idempotency_key"],
        "webhook url": view["webhook_url"],
        **{f"conflict {it['kind']}": _conflict(it) for it in view["conflicts"]},
    }


def _finished(view: dict[str, Any]) -> str | None:
    if view["finished_at"] is None:
        return None
    elapsed = _seconds(view["finished_at"], view["created_at"])
    return f"{view['finished_at']} (after {elapsed:.1f} s)"


def _conflict(conflict: dict[str, Any]) -> str:
    if conflict["closed_at"] is None:
        return f"open since {conflict['opened_at']}, receipt {conflict['receipt'] or 'none'}"
    return f"closed at {conflict['closed_at']}: {conflict['closing_note']}"


def _moments(view: dict[str, Any]) -> Iterator[dict[str, str]]:
    """One row a moment; moments that say the same are folded into one."""
    rows: list[dict[str, Any]] = []
    for it in view["timeline"]:
        row = {"who": it["who"], "what": it["what"], "detail": _detail(it)}
        if rows and all(rows[-1][name] == value for name, value in row.items()):
            rows[-1]["times"] += 1
            rows[-1]["last"] = it["at"]
            continue
        rows.append({"at": it["at"], "last": it["at"], "times": 1, **row})
    begun = rows[0]["at"] if rows else ""
    for row in rows:
        again = f" ({row['times']} times, last {row['last'][11:19]})" if row["times"] > 1 else ""
        yield {
            "at": row["at"][:19].replace("T", " "),
            "elapsed": f"+{_seconds(row['at'], begun):.1f}s",
            "who": row["who"],
            "what": row["what"],
            "detail": row["detail"] + again,
        }


def _detail(moment: dict[str, Any]) -> str:
    detail = moment["detail"]
    if moment["what"] == "webhook_tried":
        answer = f" {detail['status']}" if "status" in detail else ""
        took = f" in {detail['ms']} ms" if "ms" in detail else ""
        error = f": {detail['error']}" if "error" in detail else ""
        tried = f"{detail['type']} attempt {detail['attempt']}"
        return f"{tried} {detail['outcome']}{answer}{took}{error}"
    return ", ".join(f"{name} {value}" for name, value in detail.items())


def _seconds(at: str, since: str) -> float:
    return (datetime.fromisoformat(at) - datetime.fromisoformat(since)).total_seconds()

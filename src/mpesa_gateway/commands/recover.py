"""`mpesa-gateway recover`: what a restore or a fail-over has lost, and the hold on new payments."""

from __future__ import annotations

import uuid
from pathlib import Path

import click

from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.output import json_option, limit_option, open_database, print_json
from mpesa_gateway.commands.recovery_page import print_report, read_report
from mpesa_gateway.domain.statement import Statement, parse_statement
from mpesa_gateway.errors import InvalidInputError
from mpesa_gateway.store import recovery
from mpesa_gateway.store.recovery import Hold
from mpesa_gateway.usecases.statements import compare

# A million rows of the portal have less.
MAX_STATEMENT_BYTES = 256 * 1024 * 1024
_EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


@click.command()
@click.option("--hold", "to_hold", is_flag=True, help="Stop new payments, before a restore.")
@click.option("--accept", is_flag=True, help="Let payments start again; every hold ends.")
@click.option("--by", "person", help="Who decides it; it is stored.")
@click.option("--reason", help="Why; it is stored.")
@click.option(
    "--statement",
    "statement_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare with this M-PESA statement, as CSV from the organisation portal.",
)
@limit_option
@json_option
def recover(
    to_hold: bool,
    accept: bool,
    person: str | None,
    reason: str | None,
    statement_file: Path | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what a restore or a fail-over has lost; hold or accept.

    While there is a hold, POST /initiate answers 503 `recovery` to keys that it does not know, in
    every process. Accept it once you have compared what is listed here with the M-PESA statement.

    With --statement, each payment of the statement that the database does not have stands on a line
    that says what to do.

    Example: mpesa-gateway recover --accept --by wanjiru --reason "compared with the statement"
    """
    if to_hold and accept:
        raise click.UsageError("--hold and --accept exclude each other")
    if (to_hold or accept) and not (person and reason):
        raise click.UsageError("--hold and --accept need --by and --reason: both are stored")
    statement = None if statement_file is None else _read_statement(statement_file)
    with open_database() as (_, pool), pool.connection("command.recover") as conn:
        if to_hold:
            recovery.write_hold(conn, Hold(uuid.uuid4(), utc_now(), person or "", reason or ""))
        if accept:
            recovery.accept_holds(conn, person or "", reason or "", utc_now())
        comparison = None if statement is None else compare(conn, statement)
        report = read_report(conn, comparison, limit)
    if as_json:
        print_json(report)
    else:
        print_report(report)


def _read_statement(file: Path) -> Statement:
    if file.stat().st_size > MAX_STATEMENT_BYTES:
        raise click.ClickException(f"{file.name} is too large: export a shorter period")
    content = file.read_bytes()
    if content.startswith(_EXCEL):
        raise click.ClickException(f"{file.name} is an Excel file: save it as CSV")
    try:
        return parse_statement(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file.name} is not UTF-8: save it as CSV UTF-8") from error
    except InvalidInputError as error:
        raise click.ClickException(f"{file.name}: {error.problems[0].message}") from error

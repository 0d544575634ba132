"""Every command of ours that a runbook tells to type is typed, on payments in that trouble."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import psycopg
import pytest

from commands.conftest import Run, contradict_one, fail_one, puzzle_one
from harness.gateway import Gateway
from harness.receiver import Answer
from harness.runbooks import blocks, commands
from harness.settings import environment

PLACEHOLDER = re.compile(r"\b[A-Z]{3,}(?:_[A-Z]+)*\b")
# Words in capitals that a person does not fill in.
WORDS = {"COMPLETED", "FAILED", "PENDING", "RECEIVED", "EXHAUSTED"}


def quarantine_one(gateway: Gateway) -> str:
    """A callback that nobody can read."""
    gateway.post("/callback", b"not JSON")
    gateway.work()
    (row,) = gateway.rows("SELECT max(id) AS id FROM callbacks WHERE state = 'QUARANTINED'")
    return str(row["id"])


def payment_for(command: str) -> Callable[[Gateway], str]:
    """How to make the payment that the command is about."""
    if " resolve " not in command:
        return fail_one
    return puzzle_one if "--status" in command else contradict_one


def filled_in(command: str, gateway: Gateway) -> list[str]:
    """The command as a person would type it, with ids that are there."""
    values: dict[str, Callable[[], str]] = {
        "TRANSACTION_ID": lambda: payment_for(command)(gateway),
        "CALLBACK_ID": lambda: quarantine_one(gateway),
        "MERCHANT": lambda: gateway.transaction(fail_one(gateway))["merchant"],
        "RECEIPT": lambda: "UJQ1ABCDE9",
        "YOUR_NAME": lambda: "wanjiru",
        "WHY": lambda: "compared",
    }

    def value(match: re.Match[str]) -> str:
        return match[0] if match[0] in WORDS else values[match[0]]()

    words = shlex.split(PLACEHOLDER.sub(value, command))[1:]
    # Otherwise a watch goes on until Ctrl-C.
    return [*words, "--rounds", "1"] if "--watch" in words else words


@pytest.fixture
def env(gateway: Gateway) -> dict[str, str]:
    """What a pod has."""
    config = gateway.services.config
    return environment(
        database_url=gateway.database_url,
        redis_url=config.redis_url,
        base_url=gateway.simulator.url,
        callback_url=config.safaricom_callback_url,
    )


@pytest.mark.parametrize("command", commands("mpesa-gateway"))
def test_a_command_of_a_runbook_works(
    gateway: Gateway, run: Run, env: dict[str, str], command: str
) -> None:
    gateway.receiver.default = Answer(500)
    result = run(*filled_in(command, gateway), env=env)

    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) >= 1


def test_a_command_that_finds_nothing_to_do_fails(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    """The commands are judged by their exit status, so a refusal must have another."""
    command = "mpesa-gateway transactions resolve ID --reason 'refunded, ticket 17' --by wanjiru"
    words = shlex.split(command.replace(" ID ", f" {fail_one(gateway)} "))[1:]

    assert run(*words, env=env).exit_code != 0


@pytest.mark.parametrize(("page", "sql"), blocks("sql"))
def test_sql_of_a_runbook_works(gateway: Gateway, page: str, sql: str) -> None:
    assert page
    gateway.pay()
    with psycopg.connect(gateway.database_url, autocommit=True) as conn:
        found = conn.execute(sql.encode()).fetchall()
    # Nothing hangs here for ten minutes.
    assert found or "pg_stat_activity" in sql

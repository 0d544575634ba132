"""Commands run in this process, against the gateway of the test."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.bodies import callback_body
from harness.gateway import Gateway
from mpesa_gateway.cli import cli
from mpesa_gateway.telemetry.log import configure_logging

SILENT = "254712344042"
WRONG_AMOUNT = "254712347001"
Run = Callable[..., Result]


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs a command in this process; logging is as before afterwards."""

    def invoke(*arguments: str, env: dict[str, str], color: bool = False) -> Result:
        return CliRunner().invoke(cli, arguments, env={"COLUMNS": "220", **env}, color=color)

    yield invoke
    configure_logging("json", "info")
    logging.getLogger().handlers.clear()


@pytest.fixture
def env(gateway: Gateway) -> dict[str, str]:
    """All that a person on call needs to have set."""
    return {
        "MPESA_DATABASE_URL": gateway.database_url,
        "MPESA_REDIS_URL": gateway.services.config.redis_url,
    }


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fail_one(gateway: Gateway, phone: str = SILENT) -> str:
    """A payment that its customer cancelled, and whose webhook was tried."""
    transaction_id = gateway.pay(phone)
    body = callback_body(gateway.checkout_request_id(phone), code=1032)
    gateway.post(gateway.callback_path(phone), body)
    gateway.work()
    return transaction_id


def contradict_one(gateway: Gateway, phone: str = SILENT, receipt: str = "UJ22T8IYOU") -> str:
    """A payment that failed, and for which Safaricom then reports money."""
    transaction_id = fail_one(gateway, phone)
    body = callback_body(gateway.checkout_request_id(phone), receipt=receipt)
    gateway.post(gateway.callback_path(phone), body)
    gateway.work()
    return transaction_id


def puzzle_one(gateway: Gateway) -> str:
    """A payment that asks for a person: Safaricom reported another amount."""
    transaction_id = gateway.pay(WRONG_AMOUNT)
    gateway.simulator.wait_until_idle()
    gateway.work()
    return transaction_id

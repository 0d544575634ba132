"""A database without our schema: sentences, 503, and nothing is counted as a callback's fault."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import requests

from commands.conftest import Run
from harness.bodies import callback_body
from harness.collecting import every_case
from harness.gateway import Gateway
from harness.waiting import wait_for
from mpesa_gateway.commands.stores import refuse_unsupported_stores
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import SchemaBehindError, UnavailableError
from mpesa_gateway.usecases.callbacks import POISON_AFTER

COMMANDS = (
    ["transactions", "list"],
    ["transactions", "show", "01a22e73-af27-7f09-bddc-7c0f5c63481b"],
    ["callbacks", "list"],
    ["deliveries", "list"],
    ["stats"],
)


@every_case("arguments", COMMANDS, ids=" ".join)
def test_every_command_says_what_to_do(
    arguments: list[str], run: Run, empty_database_url: str
) -> None:
    error = run(*arguments, env={"MPESA_DATABASE_URL": empty_database_url}).exception

    assert isinstance(error, SchemaBehindError)
    assert "run `mpesa-gateway migrate`" in str(error)


def test_the_api_answers_503_and_says_why(gateway: Gateway) -> None:
    """A column of a release that the database has not seen yet."""
    gateway.execute("ALTER TABLE transactions RENAME COLUMN idempotency_key TO elsewhere")

    refused = gateway.initiate()

    assert refused.status_code == 503
    assert "schema is missing or older" in refused.json()["detail"]
    assert refused.headers["Retry-After"] == "2"
    gateway.execute("ALTER TABLE transactions RENAME COLUMN elsewhere TO idempotency_key")
    assert gateway.initiate().status_code == 201


def test_callbacks_are_answered_503_and_kept_once_it_is_there(gateway: Gateway) -> None:
    gateway.pay(phone := "254712344042")
    body = callback_body(gateway.checkout_request_id(phone), receipt="UJ22T8IYOU")
    gateway.execute("ALTER TABLE callbacks RENAME TO elsewhere")

    refused: requests.Response = gateway.post(gateway.callback_path(phone), body)
    gateway.execute("ALTER TABLE elsewhere RENAME TO callbacks")

    assert refused.status_code == 503
    assert gateway.post(gateway.callback_path(phone), body).status_code == 200


def test_work_waits_for_the_schema_and_is_not_poison(gateway: Gateway) -> None:
    payment = gateway.pay()
    (work,) = wait_for(gateway.notifier.take, what="the callback")
    assert work == Work(WorkKind.CALLBACK, work.id)
    gateway.execute("ALTER TABLE transaction_events RENAME TO elsewhere")
    for _ in range(POISON_AFTER + 1):
        gateway.dispatcher.run(work)
    rows: list[dict[str, Any]] = gateway.rows("SELECT state, attempts FROM callbacks")
    gateway.execute("ALTER TABLE elsewhere RENAME TO transaction_events")
    gateway.dispatcher.run(work)

    assert rows == [{"state": "RECEIVED", "attempts": 0}]
    assert gateway.transaction(payment)["status"] == "COMPLETED"


def test_a_start_says_that_the_schema_is_behind(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_unsupported_stores(gateway.services.config)
    assert "schema is behind" not in caplog.text

    gateway.execute("DELETE FROM schema_migrations WHERE version > 3")
    refuse_unsupported_stores(gateway.services.config)
    assert "schema is behind" in caplog.text


def test_a_role_without_rights_is_a_sentence(run: Run, database_url: str, redis_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("CREATE ROLE nobodys_role LOGIN")
    url = database_url.replace("postgres@", "nobodys_role@")
    try:
        error = run("transactions", "list", env={"MPESA_DATABASE_URL": url}).exception
        found = run("check", env={"MPESA_DATABASE_URL": url, "MPESA_REDIS_URL": redis_url})
    finally:
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute("DROP ROLE nobodys_role")

    assert isinstance(error, UnavailableError)
    assert "may not use a table of ours" in str(error)
    assert "may not use a table of ours" in found.output
    assert isinstance(found.exception, SystemExit)

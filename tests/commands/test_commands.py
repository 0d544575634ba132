"""What a person on call types: lists, timelines, requeue, redeliver, check, migrate."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest

from commands.conftest import SILENT, Run, fail_one, parsed
from daraja_simulator.server import RunningSimulator
from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.receiver import Answer
from harness.settings import environment
from mpesa_gateway import __version__
from mpesa_gateway.errors import ConfigError, GatewayError, NotFoundError


def test_transactions_are_listed_as_the_api_lists_them(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = fail_one(gateway)

    assert (
        parsed(run("transactions", "list", "--json", env=env))
        == gateway.get("/transactions").json()
    )
    table = run("transactions", "list", env=env).output
    assert transaction_id in table
    assert "FAILED" in table
    assert "cancelled" in table
    assert SILENT not in table, "a table is pasted into chats: no whole number"


def test_a_listing_can_be_narrowed_and_continued(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    ids = [gateway.pay(f"2547{number:04d}4042") for number in range(3)]
    page = parsed(run("transactions", "list", "--limit", "2", "--json", env=env))
    rest = parsed(run("transactions", "list", "--cursor", page["next"], "--json", env=env))
    shown = run("transactions", "list", "--limit", "2", env=env).output

    assert [it["transaction_id"] for it in page["items"] + rest["items"]] == ids[::-1]
    assert rest["next"] is None
    assert f"--cursor {page['next']}" in shown
    for narrowed in (["--status", "FAILED"], ["--merchant", "shop/none"], ["--stuck"]):
        empty = run("transactions", "list", *narrowed, env=env)
        assert "nothing found" in empty.output
    assert (
        len(
            parsed(run("transactions", "list", "--phone", "254700014042", "--json", env=env))[
                "items"
            ]
        )
        == 1
    )


def test_every_attempt_of_an_order_is_listed(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    assert gateway.initiate("254712344000", order_id="INV-1").status_code == 502
    second = gateway.pay(SILENT, order_id="INV-1")
    gateway.pay("254700024042", order_id="INV-2")

    listed = parsed(run("transactions", "list", "--order", "INV-1", "--json", env=env))["items"]

    assert [it["status"] for it in listed] == ["PENDING", "FAILED"]
    assert listed[0]["transaction_id"] == second
    shown = run("transactions", "show", second, env=env).output
    assert "INV-1" in shown


def test_show_tells_who_said_what(gateway: Gateway, run: Run, env: dict[str, str]) -> None:
    transaction_id = fail_one(gateway)
    view = parsed(run("transactions", "show", transaction_id, "--json", env=env))
    shown = run("transactions", "show", transaction_id, env=env).output

    assert [(it["source"], it["kind"]) for it in view["events"]] == [
        ("caller", "requested"),
        ("push", "accepted"),
        ("callback", "failed"),
    ]
    assert view["deliveries"][0]["attempts"][0]["response_status_code"] == 200
    assert "1032 cancelled" in shown
    assert "delivered" in shown


def test_show_of_a_transaction_that_is_stuck_says_so(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = gateway.pay("254712347001")
    gateway.simulator.wait_until_idle()
    gateway.work()

    assert "another amount" in run("transactions", "show", transaction_id, env=env).output
    stuck = parsed(run("transactions", "list", "--stuck", "--json", env=env))
    assert [it["transaction_id"] for it in stuck["items"]] == [transaction_id]


@pytest.mark.parametrize("group", [["transactions", "show"], ["deliveries", "redeliver"]])
def test_what_is_not_there_is_an_error_in_words(
    run: Run, env: dict[str, str], group: list[str]
) -> None:
    unknown = run(*group, "00000000-0000-4000-8000-000000000000", env=env)

    assert isinstance(unknown.exception, NotFoundError)


def test_what_can_be_no_identifier_is_an_error_in_words(run: Run, env: dict[str, str]) -> None:
    shown = run("transactions", "show", "12", env=env)
    sent = run("deliveries", "redeliver", "12", env=env)

    assert isinstance(shown.exception, NotFoundError)
    assert sent.exit_code == 2
    assert "is no transaction id" in sent.output


def test_what_is_old_is_found_behind_what_is_new(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    """An alert is about the oldest; a list begins with the newest."""
    old = fail_one(gateway)
    (row,) = gateway.rows("SELECT created_at AS at FROM deliveries")
    until = (row["at"] + timedelta(milliseconds=1)).isoformat()
    gateway.clock.advance(minutes=5)
    new = fail_one(gateway, "254712354042")
    for group, when in (("transactions", until), ("callbacks", until), ("deliveries", until)):
        shown = run(group, "list", "--older-than", when, env=env).output
        assert old in shown
        assert new not in shown
        assert new in run(group, "list", env=env).output
        assert old not in run(group, "list", "--older-than", "1h", env=env).output


def test_a_phone_that_is_none_is_not_looked_for(run: Run, env: dict[str, str]) -> None:
    result = run("transactions", "list", "--phone", "0712345678", env=env)
    assert str(result.exception).startswith("phone: must be 254 followed by nine digits")


def test_a_merchant_that_is_misspelt_is_sent_nothing(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    fail_one(gateway)
    order = ("deliveries", "redeliver", "--since", "1h", "--merchant")
    assert str(run(*order, "defualt", env=env).exception) == (
        "the merchant 'defualt' has no payment here"
    )
    assert run(*order, "default", env=env).exit_code == 0
    assert len(gateway.rows("SELECT * FROM redeliveries")) == 1


def test_a_quarantined_callback_is_listed_and_requeued_on_a_persons_word(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    body = callback_body("ws_CO_not_ours")
    gateway.post("/callback", body)
    gateway.work()
    quarantined = parsed(run("callbacks", "list", "--quarantined", "--json", env=env))["items"]
    assert [(it["state"], it["outcome"]) for it in quarantined] == [("QUARANTINED", "unmatched")]
    callback_id = str(quarantined[0]["id"])
    assert "unmatched" in run("callbacks", "list", env=env).output
    assert run("callbacks", "requeue", callback_id, env=env).exit_code == 2, "--by is required"
    result = run("callbacks", "requeue", callback_id, "--by", "wanjiru", env=env)

    assert "1 requeued" in result.output
    (row,) = gateway.rows("SELECT state, requeued_by FROM callbacks")
    assert row == {"state": "RECEIVED", "requeued_by": "wanjiru"}
    again = run("callbacks", "requeue", callback_id, "--by", "wanjiru", env=env)
    assert isinstance(again.exception, NotFoundError)


def test_an_orphan_is_listed_by_the_payment_that_its_token_names(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    missing = str(uuid.uuid4())
    token = gateway.services.config.token_keys.make(uuid.UUID(missing), bytes(16))
    assert gateway.post(f"/callback/{token.text}", callback_body("ws_CO_lost")).ok

    listed = parsed(run("callbacks", "list", "--transaction", missing, "--json", env=env))["items"]

    shown = [(it["state"], it["outcome"], it["orphan_of"], it["path"]) for it in listed]
    assert shown == [("QUARANTINED", "orphan", missing, "token")]
    page = parsed(run("callbacks", "show", str(listed[0]["id"]), "--json", env=env))
    assert page["orphan_of"] == missing


def test_a_person_lets_a_plain_callback_settle_where_a_token_is_required(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = gateway.pay(SILENT)
    object.__setattr__(gateway.services.callbacks, "token_required", True)
    gateway.post("/callback", callback_body(gateway.checkout_request_id(SILENT)))
    gateway.work()
    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    (row,) = gateway.rows("SELECT id, outcome FROM callbacks")
    assert row["outcome"] == "token_required"
    parsed(run("callbacks", "requeue", str(row["id"]), "--by", "wanjiru", "--json", env=env))
    gateway.clock.advance(seconds=5)
    gateway.sweep()

    assert gateway.transaction(transaction_id)["status"] == "COMPLETED"


def test_callbacks_of_one_transaction(gateway: Gateway, run: Run, env: dict[str, str]) -> None:
    transaction_id = fail_one(gateway)
    gateway.post("/callback", b"other")
    listed = parsed(run("callbacks", "list", "--transaction", transaction_id, "--json", env=env))

    assert [it["transaction_id"] for it in listed["items"]] == [transaction_id]
    assert listed["items"][0]["path"] == "token"


def test_deliveries_are_listed_and_sent_again(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    gateway.receiver.answers = [Answer(500)]
    transaction_id = fail_one(gateway)
    assert transaction_id in run("deliveries", "list", env=env).output
    pending = parsed(run("deliveries", "list", "--state", "PENDING", "--json", env=env))["items"]
    assert [it["transaction_id"] for it in pending] == [transaction_id]
    assert parsed(run("deliveries", "list", "--merchant", "x/y", "--json", env=env))["items"] == []
    assert transaction_id in run("deliveries", "redeliver", transaction_id, env=env).output
    gateway.clock.advance(seconds=5)
    gateway.sweep()
    view = parsed(run("deliveries", "list", "--transaction", transaction_id, "--json", env=env))

    attempts = view["items"][0]["attempts"]
    assert [it["outcome"] for it in attempts] == ["failed", "delivered"]
    sources = gateway.rows("SELECT source FROM transaction_events WHERE kind = 'redelivery'")
    assert sources == [{"source": "person"}]
    again = parsed(run("deliveries", "redeliver", transaction_id, "--json", env=env))
    assert again["items"][0]["state"] == "PENDING"


def test_commands_work_without_redis(gateway: Gateway, run: Run) -> None:
    transaction_id = fail_one(gateway)
    only = {"MPESA_DATABASE_URL": gateway.database_url, "MPESA_REDIS_URL": ""}

    assert run("deliveries", "redeliver", transaction_id, env=only).exit_code == 0


def everything(gateway: Gateway, **extra: str) -> dict[str, str]:
    good = {
        "database_url": gateway.database_url,
        "redis_url": gateway.services.config.redis_url,
        "base_url": gateway.simulator.url,
        "callback_url": "http://127.0.0.1:1/callback",
    }
    return environment(**{**good, **extra})


def test_check_says_ok_to_everything_and_keeps_the_token_in_use(
    gateway: Gateway, run: Run, simulator: RunningSimulator
) -> None:
    gateway.pay(SILENT)
    report = parsed(run("check", "--json", env=everything(gateway)))

    states = {it["what"]: it["state"] for it in report["findings"] if it["state"] != "warning"}
    assert states == {
        "configuration": "ok",
        "postgres": "ok",
        "redis": "ok",
        "daraja for default": "ok",
        "passkey of default": "ok",
    }
    assert len(simulator.ledger()["tokens"]) == 1


def test_check_lists_every_problem_at_once(gateway: Gateway, run: Run) -> None:
    gateway.simulator.change(credentials={"another": "app"})
    broken = everything(gateway, redis_url="redis://127.0.0.1:1/0")
    result = run("check", env=broken)
    assert result.exit_code == 1
    assert "the credentials are refused" in result.output
    assert "MPESA_REDIS_URL" in result.output
    nowhere = everything(gateway, safaricom_base_url="http://127.0.0.1:1")
    assert "does not answer at http://127.0.0.1:1" in run("check", env=nowhere).output


def test_check_looks_at_postgres_and_redis_although_settings_are_wrong(
    gateway: Gateway, run: Run, empty_database_url: str
) -> None:
    env = everything(
        gateway,
        database_url=empty_database_url,
        lease="1s",
        safaricom_short_code="",
        worker_concurrency="many",
    )
    report = json.loads(run("check", "--json", env=env).stdout)

    problems = " ".join(it["detail"] for it in report["findings"] if it["state"] == "problem")
    for name in ("MPESA_LEASE", "MPESA_SAFARICOM_SHORT_CODE", "MPESA_WORKER_CONCURRENCY"):
        assert name in problems
    assert "run `mpesa-gateway migrate`" in problems
    assert {"postgres", "redis"} <= {it["what"] for it in report["findings"]}


def test_check_without_a_database(gateway: Gateway, run: Run) -> None:
    env = everything(gateway, database_url="postgresql://postgres@127.0.0.1:1/x")

    assert "127.0.0.1:1: the connection is refused" in run("check", env=env).output


def test_check_of_nothing_names_every_required_variable(run: Run) -> None:
    result = run("check", env={"MPESA_DATABASE_URL": "", "MPESA_REDIS_URL": ""})

    assert result.exit_code == 1
    assert "MPESA_DATABASE_URL is required" in result.output
    assert "MPESA_SAFARICOM_CALLBACK_URL is required" in result.output


def test_migrate_and_wait(run: Run, empty_database_url: str) -> None:
    env = {"MPESA_DATABASE_URL": empty_database_url}
    late = run("migrate", "--wait", "--timeout", "100ms", env=env)
    assert isinstance(late.exception, GatewayError)
    assert "applying 001" in run("migrate", env=env).output
    assert "nothing to do" in run("migrate", env=env).output
    assert run("migrate", "--wait", env=env).exit_code == 0
    assert run("migrate", "--wait", "--timeout", "soon", env=env).exit_code == 2


def test_a_command_without_its_settings_names_them(run: Run) -> None:
    result = run("transactions", "list", env={"MPESA_DATABASE_URL": ""})

    assert isinstance(result.exception, ConfigError)
    (problem,) = result.exception.problems
    assert problem.startswith("MPESA_DATABASE_URL is required and not set: Postgres")


def test_the_version(run: Run) -> None:
    assert __version__ in run("--version", env={}).output

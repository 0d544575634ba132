"""What lists print: one line a row at 80 columns without a terminal, and `-o` for the rest."""

from __future__ import annotations

import csv
import io
import json

import pytest

from commands.conftest import SILENT, Run, contradict_one, fail_one, parsed, puzzle_one
from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.receiver import Answer
from mpesa_gateway.errors import InvalidInputError, NotFoundError

LISTS = ["transactions", "callbacks", "deliveries"]


@pytest.fixture
def narrow(env: dict[str, str]) -> dict[str, str]:
    """`kubectl exec` without a terminal."""
    return {**env, "COLUMNS": "80", "LINES": "24"}


@pytest.fixture
def many(gateway: Gateway) -> list[str]:
    """27 payments: most failed, some pending, one that needs manual review, one with a conflict."""
    ids = [fail_one(gateway, f"2547{number:04d}4042") for number in range(20)]
    ids += [gateway.pay(f"2548{number:04d}4042") for number in range(5)]
    ids.append(contradict_one(gateway, "254712354042"))
    ids.append(puzzle_one(gateway))
    return ids


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("group", LISTS)
def test_a_list_has_one_line_a_row_at_80_columns(
    run: Run, narrow: dict[str, str], group: str
) -> None:
    lines = run(group, "list", env=narrow).output.splitlines()
    rows = parsed(run(group, "list", "--json", env=narrow))["items"]

    assert len(lines) == len(rows) + 1
    assert len(lines) <= 40
    assert max(len(line) for line in lines) <= 80
    assert "\x1b[" not in "".join(lines), "no colours without a terminal"


def test_a_narrow_list_shows_what_show_takes(
    run: Run, narrow: dict[str, str], many: list[str]
) -> None:
    _, *lines = run("transactions", "list", env=narrow).output.splitlines()
    shown = [line.split()[0] for line in lines]

    assert shown == [it[-8:] for it in reversed(many)]
    view = parsed(run("transactions", "show", shown[0], "--json", env=narrow))
    assert view["transaction_id"] == many[-1]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("group", LISTS)
def test_wide_is_whole(run: Run, narrow: dict[str, str], group: str) -> None:
    wide = run(group, "list", "-o", "wide", env=narrow).output
    rows = parsed(run(group, "list", "-o", "json", env=narrow))["items"]

    assert len(wide.splitlines()) == len(rows) + 1
    for row in rows:
        assert str(row.get("transaction_id") or "") in wide
    assert "…" not in wide


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("group", "kind", "key"),
    [
        ("transactions", "transaction", "transaction_id"),
        ("callbacks", "callback", "id"),
        ("deliveries", "delivery", "id"),
    ],
)
def test_names_are_one_a_line(
    run: Run, narrow: dict[str, str], group: str, kind: str, key: str
) -> None:
    rows = parsed(run(group, "list", "--json", env=narrow))["items"]
    names = run(group, "list", "-o", "name", env=narrow).output.splitlines()

    assert names == [f"{kind}/{row[key]}" for row in rows]


def test_csv_has_a_header_and_no_formula(
    gateway: Gateway, run: Run, narrow: dict[str, str]
) -> None:
    ids = [fail_one(gateway), fail_one(gateway, "254712354042")]
    text = run("transactions", "list", "-o", "csv", env=narrow).output
    rows = list(csv.DictReader(io.StringIO(text)))

    assert [row["transaction_id"] for row in rows] == ids[::-1]
    assert {row["status"] for row in rows} == {"FAILED"}
    assert SILENT not in text


def test_json_is_the_same_by_both_options(
    gateway: Gateway, run: Run, narrow: dict[str, str]
) -> None:
    fail_one(gateway)

    assert parsed(run("transactions", "list", "-o", "json", env=narrow)) == parsed(
        run("transactions", "list", "--json", env=narrow)
    )
    assert run("transactions", "list", "-o", "yaml", env=narrow).exit_code == 2


@pytest.mark.usefixtures("many")
def test_a_page_names_the_command_of_the_next(run: Run, narrow: dict[str, str]) -> None:
    *_, last = run("transactions", "list", "--limit", "3", env=narrow).output.splitlines()
    assert last.startswith("More: mpesa-gateway transactions list --cursor ")
    words = last.removeprefix("More: mpesa-gateway ").split()

    assert len(parsed(run(*words, "--json", env=narrow))["items"]) == 24
    for other in ("json", "csv", "name"):
        assert (
            "More:"
            not in run("transactions", "list", "--limit", "3", "-o", other, env=narrow).output
        )


def test_colours_are_for_terminals(gateway: Gateway, run: Run, narrow: dict[str, str]) -> None:
    fail_one(gateway)
    forced = run("transactions", "list", env={**narrow, "FORCE_COLOR": "1"}, color=True).output

    assert "\x1b[31mFAILED" in forced
    off = {**narrow, "FORCE_COLOR": "1", "NO_COLOR": "1"}
    assert "\x1b[" not in run("transactions", "list", env=off, color=True).output


@pytest.mark.parametrize("state", ["failed", "FAILED", "Failed"])
def test_states_may_be_written_in_any_case(
    gateway: Gateway, run: Run, narrow: dict[str, str], state: str
) -> None:
    transaction_id = fail_one(gateway)

    found = parsed(run("transactions", "list", "--status", state, "--json", env=narrow))["items"]
    assert [it["transaction_id"] for it in found] == [transaction_id]
    assert run("callbacks", "list", "--state", "applied", env=narrow).exit_code == 0
    delivered = run("deliveries", "list", "--state", "delivered", "-o", "name", env=narrow).output
    assert delivered.startswith("delivery/")


def test_a_payment_is_found_by_whatever_is_known_of_it(
    gateway: Gateway, run: Run, narrow: dict[str, str]
) -> None:
    transaction_id = gateway.pay(SILENT)
    body = callback_body(gateway.checkout_request_id(SILENT), receipt="UJ22T8IYOU")
    gateway.post(gateway.callback_path(SILENT), body)
    gateway.work()
    view = gateway.transaction(transaction_id)
    known = [
        transaction_id,
        transaction_id.upper(),
        transaction_id[-8:],
        view["receipt"],
        view["receipt"].lower(),
        view["idempotency_key"],
        view["checkout_request_id"],
    ]
    for text in known:
        found = parsed(run("transactions", "show", text, "--json", env=narrow))
        assert found["transaction_id"] == transaction_id, text


def test_the_receipt_of_a_conflict_finds_its_payment(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = contradict_one(gateway, receipt="UJ22T8IYOU")

    found = parsed(run("transactions", "show", "UJ22T8IYOU", "--json", env=env))
    assert found["transaction_id"] == transaction_id


def test_what_fits_nothing_says_what_was_looked_for(run: Run, env: dict[str, str]) -> None:
    for text in ("NOSUCHRECEIPT", "00000000", "x" * 400):
        error = run("transactions", "show", text, env=env).exception
        assert isinstance(error, NotFoundError)
        assert "receipt, idempotency key or CheckoutRequestID" in str(error)


def test_a_key_that_two_merchants_used_is_not_guessed(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    first, second = gateway.pay(SILENT), gateway.pay("254712354042")
    key = gateway.transaction(first)["idempotency_key"]
    # Not what a trigger would allow.
    gateway.execute("SET session_replication_role TO replica")
    gateway.execute(
        "UPDATE transactions SET merchant = 'shop/other', idempotency_key = %s"
        " WHERE internal_transaction_id = %s",
        key,
        second,
    )
    gateway.execute("RESET session_replication_role")

    error = run("transactions", "show", key, env=env).exception
    assert isinstance(error, InvalidInputError)
    assert first in str(error)
    assert second in str(error)


def test_the_page_of_a_payment_names_the_next_command(
    gateway: Gateway, run: Run, narrow: dict[str, str]
) -> None:
    shown = run("transactions", "show", puzzle_one(gateway), env=narrow).output

    assert "Next\n" in shown
    assert "mpesa-gateway callbacks show " in shown
    assert "mpesa-gateway transactions resolve" in shown
    conflict = run("transactions", "show", contradict_one(gateway), env=narrow).output
    assert "--by YOUR_NAME --reason WHY\n" in conflict


def test_repeated_lines_of_a_timeline_are_folded(
    gateway: Gateway, run: Run, narrow: dict[str, str]
) -> None:
    transaction_id = gateway.pay(SILENT)
    gateway.execute(
        "INSERT INTO transaction_events (transaction_id, at, source, kind, detail)"
        " SELECT t.id, clock_timestamp() + n * interval '1 second', 'query',"
        " 'said_no_information', '{}' FROM transactions t, generate_series(1, 60) n"
    )
    shown = run("transactions", "show", transaction_id, env=narrow).output

    assert shown.count("said_no_information") == 1
    assert "60 times" in shown


def test_an_exhausted_webhook_can_be_sent_again(
    gateway: Gateway, run: Run, narrow: dict[str, str]
) -> None:
    gateway.receiver.answers = [Answer(500)]
    transaction_id = fail_one(gateway)
    gateway.execute(
        "UPDATE deliveries SET state = 'EXHAUSTED', next_attempt_at = NULL, finished_at = now()"
    )
    shown = run("transactions", "show", transaction_id, env=narrow).output

    assert f"mpesa-gateway deliveries redeliver {transaction_id}" in shown


def quarantined(gateway: Gateway, body: bytes) -> str:
    gateway.post("/callback", body)
    gateway.work()
    (row,) = gateway.rows("SELECT max(id) AS id FROM callbacks")
    return str(row["id"])


def test_a_callback_is_shown_with_amount_receipt_and_masked_body(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    body = callback_body("ws_CO_310120261200001712345678", receipt="UJ22T8IYOU", amount="70")
    callback_id = quarantined(gateway, body)
    shown = run("callbacks", "show", callback_id, env=env).output

    for text in ("70", "UJ22T8IYOU", "QUARANTINED", "unmatched", '"ResultCode"'):
        assert text in shown
    assert "712345678" not in shown, "not in the id either"
    assert '"Value": 254******' in shown
    said = json.loads(body)["Body"]["stkCallback"]["CallbackMetadata"]["Item"]
    phone = next(str(it["Value"]) for it in said if it["Name"] == "PhoneNumber")
    assert phone not in shown
    view = parsed(run("callbacks", "show", callback_id, "--json", env=env))
    assert (view["amount"], view["receipt"]) == ("70", "UJ22T8IYOU")


def test_whole_numbers_are_revealed_to_somebody_with_a_name(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = fail_one(gateway)
    (row,) = gateway.rows("SELECT id, body FROM callbacks")
    assert run("callbacks", "show", str(row["id"]), "--reveal", env=env).exit_code == 2
    assert gateway.rows("SELECT * FROM callback_reveals") == []
    arguments = ("callbacks", "show", str(row["id"]), "--reveal", "--by", "wanjiru")
    view = parsed(run(*arguments, "--json", env=env))

    assert json.loads(view["body"]) == json.loads(bytes(row["body"]))
    assert [it["by"] for it in view["reveals"]] == ["wanjiru"]
    history = parsed(run("transactions", "show", transaction_id, "--json", env=env))
    seen = [it for it in history["timeline"] if it["what"] == "callback_revealed"]
    assert [it["detail"]["by"] for it in seen] == ["wanjiru"]


def test_a_body_that_nobody_can_read_harms_no_terminal(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    callback_id = quarantined(gateway, b"\x1b[2J\x07\xff not JSON 254712345678")
    shown = run("callbacks", "show", callback_id, env=env)

    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.output
    assert "254712345678" not in shown.output
    assert "unreadable" in shown.output
    missing = run("callbacks", "show", "999999", env=env)
    assert isinstance(missing.exception, NotFoundError)

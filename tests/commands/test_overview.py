"""`stats` and `merchants list`: the whole gateway, and who may take payments, at a look."""

from __future__ import annotations

from pathlib import Path

from rich.console import ConsoleDimensions

from commands.conftest import SILENT, Run, contradict_one, fail_one, parsed, puzzle_one
from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.merchants import write_file, write_merchant
from harness.receiver import Answer
from harness.settings import API_KEY, environment
from mpesa_gateway.commands.stats import _look
from mpesa_gateway.store.pool import Pool


def test_stats_count_what_the_database_holds(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    quiet = parsed(run("stats", "--json", env=env))
    assert quiet["last_hour"]["PENDING"] == {"count": 0, "amount": "0"}
    assert quiet["transactions"]["pending_oldest_s"] is None
    contradict_one(gateway)
    puzzle_one(gateway)
    gateway.receiver.answers = [Answer(410)]
    fail_one(gateway, "254712354042")
    gateway.receiver.answers = [Answer(500)]
    fail_one(gateway, "254712364042")
    gateway.pay("254712374042", amount="25")
    gateway.post("/callback", callback_body("ws_CO_not_ours"))
    view = parsed(run("stats", "--json", env=env))

    assert view["last_hour"]["PENDING"] == {"count": 2, "amount": "35"}
    assert view["last_hour"]["FAILED"] == {"count": 3, "amount": "30"}
    payments, inbox, outbox = view["transactions"], view["callbacks"], view["deliveries"]
    assert (payments["pending"], payments["attention"], payments["open_conflicts"]) == (2, 1, 1)
    assert payments["pending_oldest_s"] >= 0
    assert (inbox["waiting"], inbox["quarantined"]) == (1, 1)
    assert (outbox["retrying"], outbox["gone"], outbox["exhausted"], outbox["due"]) == (1, 1, 0, 0)


def test_what_is_exhausted_due_and_parked_is_counted_apart(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    for number in range(4):
        fail_one(gateway, f"2547{number:04d}4042")
    states = [
        "state = 'EXHAUSTED', next_attempt_at = NULL, finished_at = now()",
        "state = 'PENDING', finished_at = NULL, next_attempt_at = now() - interval '1 minute'",
        "state = 'PENDING', finished_at = NULL, next_attempt_at = now(), waits_for_endpoint = true",
    ]
    ids = [it["id"] for it in gateway.rows("SELECT id FROM deliveries ORDER BY id")]
    for delivery, state in zip(ids, states, strict=False):
        gateway.execute(f"UPDATE deliveries SET {state} WHERE id = %s", delivery)
    outbox = parsed(run("stats", "--json", env=env))["deliveries"]

    assert (outbox["exhausted"], outbox["due"], outbox["parked"]) == (1, 1, 1)
    assert 60 <= outbox["due_oldest_s"] < 120
    shown = run("stats", env=env).output
    assert "webhooks exhausted" in shown
    assert "payments pending" in shown


def test_stats_can_be_watched(gateway: Gateway, run: Run, env: dict[str, str]) -> None:
    gateway.pay(SILENT)
    arguments = ("stats", "--watch", "--interval", "0.5", "--rounds")
    watched = run(*arguments, "2", env=env)
    assert watched.exit_code == 0, watched.output
    assert "What waits" in watched.output
    nowhere = {"MPESA_DATABASE_URL": "postgresql://postgres@127.0.0.1:1/x"}
    away = run(*arguments, "1", env=nowhere)
    assert away.exit_code == 0, away.output
    assert "trying again" in away.output
    assert run("stats", "--watch", "--json", env=env).exit_code == 2


def test_a_small_terminal_shows_what_is_not_zero(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    gateway.pay(SILENT)
    arguments = ("stats", "--watch", "--rounds", "1")
    for small in ({"LINES": "12"}, {"COLUMNS": "40"}):
        shown = run(*arguments, env={**env, **small}).output
        assert "payments pending" in shown
        assert "webhooks exhausted" not in shown
        assert len(shown.strip().splitlines()) <= 12
    assert "webhooks exhausted" in run(*arguments, env={**env, "LINES": "24"}).output


def test_a_watch_says_how_old_its_last_figures_are_while_postgres_is_away(
    gateway: Gateway,
) -> None:
    size = ConsoleDimensions(100, 40)
    _, seen_at = _look(gateway.pool, gateway.database_url, None, size)
    assert seen_at is not None
    nowhere = "postgresql://postgres@127.0.0.1:1/x"
    away = Pool(nowhere, size=1, name="command")
    away.open()
    try:
        sentence, still = _look(away, nowhere, seen_at, size)
    finally:
        away.close()

    assert f"(last figures at {seen_at}); trying again" in str(sentence)
    assert still == seen_at


def everything(directory: Path) -> dict[str, str]:
    return environment(
        database_url="", redis_url="", base_url="", callback_url="", merchants_dir=str(directory)
    )


def test_merchants_are_listed_with_their_files_and_without_secrets(
    run: Run, tmp_path: Path
) -> None:
    write_merchant(tmp_path, "a.json", suspended=True)
    write_merchant(tmp_path, "b.json", name="shops/b", key="key-of-b", draining=True)
    write_file(tmp_path / "c.json", '{"version": 1}')
    write_merchant(tmp_path, "d.json", name="shops/d", key="key-of-d", environment="production")
    env = everything(tmp_path)
    listed = run("merchants", "list", "--json", env=env)
    view = parsed(listed)

    assert [(it["name"], it["loaded_from"], it["environment"]) for it in view["items"]] == [
        ("default", "environment", "sandbox"),
        ("shops/b", "b.json", "sandbox"),
        ("shops/duka", "a.json", "sandbox"),
    ]
    assert [(it["suspended"], it["draining"]) for it in view["items"][1:]] == [
        (False, True),
        (True, False),
    ]
    assert list(view["errors"]) == ["c.json", "d.json"]
    assert "leads to real money" in view["errors"]["d.json"]
    shown = run("merchants", "list", env=env).output
    for word in ("suspended", "draining", "active", "600100", "c.json", "Field required"):
        assert word in shown
    for secret in (API_KEY, "duka-webhook-secret", "duka-consumer-secret", "duka-consumer-key"):
        assert secret not in shown + listed.output


def test_a_directory_that_is_away_is_an_error_in_words(run: Run, tmp_path: Path) -> None:
    result = run("merchants", "list", env=everything(tmp_path / "away"))

    assert result.exit_code == 1
    assert "MPESA_MERCHANTS_DIR cannot be read: NotADirectoryError" in result.output


def test_a_history_is_handed_over_to_the_merchant_that_has_the_name_now(
    run: Run, gateway: Gateway, env: dict[str, str], tmp_path: Path
) -> None:
    both = {**everything(tmp_path), **env}
    adopt = ("merchants", "adopt", "shops/duka", "--by", "jane", "--reason", "OPS-71")
    for uid in (None, "uid-2"):
        assert run(*adopt, env=both).exit_code == 1
        write_merchant(tmp_path, uid=uid or ...)
    assert "nobody had the name" in str(run(*adopt, env=both).exception)
    owner = (
        "INSERT INTO merchant_owners (merchant, uid, since) VALUES ('shops/duka', 'uid-1', now())"
    )
    gateway.execute(owner)
    result = run(*adopt, env=both)
    assert result.exit_code == 0, result.output
    assert "(uid-2)" in result.output
    assert gateway.rows("SELECT uid FROM merchant_owners") == [{"uid": "uid-2"}]
    (said,) = gateway.rows('SELECT "by", reason FROM merchant_adoptions')
    assert said == {"by": "jane", "reason": "OPS-71"}
    for missing in ("--by", "--reason"):
        at = adopt.index(missing)
        assert run(*adopt[:at], *adopt[at + 2 :], env=both).exit_code == 2

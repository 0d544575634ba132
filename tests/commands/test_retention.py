"""`retention list` and `remove`: what an operator sees of months, and how one goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from commands.conftest import SILENT, Run, fail_one, parsed
from harness.gateway import Gateway
from mpesa_gateway.clock import utc_now
from mpesa_gateway.errors import NotFoundError, RemovalRefusedError
from mpesa_gateway.usecases.months import Months

WHY = ("--by", "wanjiru", "--reason", "kept for seven years", "--yes")


def begin_month(gateway: Gateway, at: datetime) -> None:
    Months(gateway.pool, lambda: at, f"worker {at}").keep_up()


@pytest.fixture
def old(gateway: Gateway) -> str:
    """A payment of long ago in January 2026, and one of today."""
    begin_month(gateway, datetime(2026, 1, 31, tzinfo=UTC))
    gateway.clock.advance(days=-400)
    transaction_id = fail_one(gateway)
    gateway.clock.advance(days=400)
    begin_month(gateway, utc_now() + timedelta(days=1))
    fail_one(gateway, "254712354042")
    return transaction_id


def test_a_month_is_listed_and_removed_and_its_payment_is_told_from_its_key(
    run: Run, env: dict[str, str], old: str
) -> None:
    (january,) = [
        it for it in parsed(run("retention", "list", "--json", env=env)) if it["month"] == "2026-01"
    ]
    assert january["in_the_way"] == []
    assert january["removed_at"] is None
    assert "2026-01" in run("retention", "list", env=env).output

    done = run("retention", "remove", "2026-01", *WHY, env=env)
    assert done.exit_code == 0, done.output
    assert "1 payments of 2026-01 removed; their keys stay." in done.output
    (january,) = [
        it for it in parsed(run("retention", "list", "--json", env=env)) if it["month"] == "2026-01"
    ]
    assert january["removed_by"] == "wanjiru"
    assert january["removed_at"] is not None

    shown = run("transactions", "show", old, env=env)
    assert isinstance(shown.exception, NotFoundError)
    assert f"the rows of payment {old} were removed with their month" in str(shown.exception)


def test_what_is_open_is_said_and_nothing_goes(
    run: Run, env: dict[str, str], gateway: Gateway, old: str
) -> None:
    gateway.execute("UPDATE callbacks SET state = 'QUARANTINED' WHERE id = 1")
    refused = run("retention", "remove", "2026-01", *WHY, env=env)

    assert isinstance(refused.exception, RemovalRefusedError)
    assert "1 callbacks are not applied or in quarantine" in str(refused.exception)
    assert gateway.get(f"/transactions/{old}").status_code == 200


@pytest.mark.usefixtures("old")
def test_it_asks_first_and_takes_no_other_month(run: Run, env: dict[str, str]) -> None:
    asked = run("retention", "remove", "2026-01", *WHY[:-1], env=env)
    assert asked.exit_code == 1
    assert "Remove all payments of 2026-01 for good?" in asked.output
    for month in ("2026-13", "January", "2025-01"):
        wrong = run("retention", "remove", month, *WHY, env=env)
        assert wrong.exit_code == 2, wrong.output
        assert "is no month" in wrong.output


def test_no_payment_at_all_is_a_list_all_the_same(
    run: Run, env: dict[str, str], gateway: Gateway
) -> None:
    assert gateway.rows("SELECT FROM transactions WHERE phone = %s", SILENT) == []
    listed = parsed(run("retention", "list", "--json", env=env))

    assert listed[0]["month"] == "first"
    assert listed[0]["in_the_way"] == []

"""What Postgres could not take is held: Safaricom does not repeat a callback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from prometheus_client import REGISTRY

from harness.inbox import InboxHarness
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.api.callbacks import inbox as inbox_module
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import pool as pool_module
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.store.pool import Pool

END_SESSIONS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def held() -> float:
    return REGISTRY.get_sample_value("mpesa_callbacks_held") or 0.0


def dropped() -> float:
    return REGISTRY.get_sample_value("mpesa_callbacks_dropped_total") or 0.0


def put(harness: InboxHarness, token: CallbackToken | None, *bodies: bytes) -> list[object]:
    """The verdict, or the error, of each; they arrive together."""

    async def main() -> list[object]:
        tasks = (harness.put(token, body) for body in bodies)
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


def are_unavailable(answers: list[object]) -> bool:
    return all(isinstance(it, UnavailableError) for it in answers)


def bodies(harness: InboxHarness) -> set[bytes]:
    return {bytes(row[0]) for row in harness.rows("SELECT body FROM callbacks")}  # type: ignore[call-overload]


@pytest.mark.parametrize("how", ["ended", "read-only"])
def test_a_batch_that_met_a_useless_connection_is_committed_on_another(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nobody is answered 503 for it. The pool is not told: it looked a moment ago."""
    monkeypatch.setattr(pool_module, "UNCHECKED_S", 60.0)
    token = harness.new_token()
    assert put(harness, token, b"first") == [Verdict.KEPT]
    if how == "ended":
        with psycopg.connect(harness.url, autocommit=True) as conn:
            conn.execute(END_SESSIONS)
    else:
        monkeypatch.setattr(pool_module, "DRAIN_PAUSE_S", 0.0)
        with harness.pool.connection("test") as one, harness.pool.connection("test") as two:
            for conn in (one, two):
                conn.execute("SET default_transaction_read_only = on")

    assert put(harness, token, b"second", b"third") == [Verdict.KEPT] * 2
    assert bodies(harness) == {b"first", b"second", b"third"}
    assert held() == 0


@contextmanager
def refusing(url: str, sqlstate: str, only: bytes | None = None) -> Iterator[None]:
    """A table that takes no row, or none with this body, by an error of that code."""
    condition = "true" if only is None else f"new.body = '{only.decode()}'::bytea"
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {condition} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END IF;"
            " RETURN new; END $$".encode()
        )
        conn.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON callbacks"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        yield
        conn.execute("DROP TRIGGER refuse ON callbacks")
        conn.execute("DROP FUNCTION refuse")


@pytest.mark.parametrize("sqlstate", ["53100", "25006", "57014", "40001"])
def test_a_whole_batch_that_postgres_refuses_is_held_and_committed_later(
    harness: InboxHarness, sqlstate: str
) -> None:
    """A full disk, a read-only server, a cancelled statement, a serialisation failure."""
    token = harness.new_token()
    with refusing(harness.url, sqlstate):
        assert are_unavailable(put(harness, token, b"one", b"two", b"three"))
        wait_for(lambda: held() == 3, what="three that are held")

    wait_for(lambda: bodies(harness) == {b"one", b"two", b"three"}, what="what was held")
    wait_for(lambda: held() == 0, what="the gauge")


@pytest.mark.parametrize("sqlstate", ["54000", "22021"])
def test_a_body_that_postgres_never_takes_is_not_held(harness: InboxHarness, sqlstate: str) -> None:
    """It would be tried again and again, and would keep the others from being held."""
    token = harness.new_token()
    with refusing(harness.url, sqlstate, only=b"bad"):
        assert are_unavailable(put(harness, token, b"bad"))
        answers = put(harness, token, b"good", b"bad", b"better")
        assert answers[0] == answers[2] == Verdict.KEPT
        assert are_unavailable(answers[1:2])
        assert held() == 0

    assert bodies(harness) == {b"good", b"better"}


@pytest.fixture
def mortal(own_postgres: EmbeddedPostgres, own_database_url: str) -> Iterator[InboxHarness]:
    """An inbox whose Postgres may be stopped."""
    assert own_postgres.process.is_running()
    pool = Pool(own_database_url, size=2, name="test")
    pool.open()
    made = InboxHarness(pool)
    with psycopg.connect(own_database_url) as conn:
        conn.execute("TRUNCATE callbacks, transactions CASCADE")
    made.inbox.start()
    yield made
    made.inbox.stop()
    pool.close()


def test_callbacks_of_an_outage_are_committed_in_full_when_postgres_is_back(
    mortal: InboxHarness, own_postgres: EmbeddedPostgres
) -> None:
    token = mortal.new_token()
    sent = [b"callback %d" % number for number in range(200)]
    own_postgres.stop()
    assert are_unavailable(put(mortal, token, *sent[:150]))
    for body in sent[150:153]:
        assert are_unavailable(put(mortal, token, body))
    assert are_unavailable(put(mortal, None, *sent[153:]))
    wait_for(lambda: held() == 200, what="all to be held")

    own_postgres.start()

    wait_for(lambda: bodies(mortal) == set(sent), what="what was held")
    wait_for(lambda: held() == 0, what="the gauge")
    assert put(mortal, token, b"after") == [Verdict.KEPT]


def test_what_is_held_is_bounded_and_the_rest_is_counted(
    own_postgres: EmbeddedPostgres, own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_LATE", 5)
    monkeypatch.setattr(inbox_module, "STOP_S", 0.5)
    pool = Pool(own_database_url, size=2, name="test")
    pool.open()
    harness = InboxHarness(pool)
    token = harness.new_token()
    harness.inbox.start()
    own_postgres.stop()
    before = dropped()
    assert are_unavailable(put(harness, token, *(b"%d" % number for number in range(8))))
    wait_for(lambda: dropped() - before == 3, what="the count of those without room")
    assert held() == 5

    # Nor does the end of the process wait for a Postgres that stays away.
    harness.inbox.stop()
    assert not harness.inbox.is_alive()
    pool.close()


def test_what_is_held_when_the_process_is_told_to_stop_is_still_committed(
    mortal: InboxHarness, own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres comes back within the seconds that the end may take."""
    monkeypatch.setattr(inbox_module, "STOP_S", 30.0)
    token = mortal.new_token()
    own_postgres.stop()
    assert are_unavailable(put(mortal, token, b"held"))
    wait_for(lambda: held() == 1, what="it to be held")

    async def start_meanwhile() -> None:
        loop = asyncio.get_running_loop()
        stopped = loop.run_in_executor(None, mortal.inbox.stop)
        await loop.run_in_executor(None, own_postgres.start)
        await stopped

    asyncio.run(start_meanwhile())

    assert bodies(mortal) == {b"held"}

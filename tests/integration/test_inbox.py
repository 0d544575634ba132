"""The flusher's rules: merged keys, sorted keys, a bad row, waiters that hung up, Postgres slow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TypeVar

import psycopg
import pytest

from harness.gateway import CollectingNotifier
from harness.inbox import ADDRESS, InboxHarness
from harness.logs import logging_restored
from harness.waiting import PROMPTLY_S, wait_for
from mpesa_gateway.api.callbacks import inbox as inbox_module
from mpesa_gateway.api.callbacks.inbox import Inbox
from mpesa_gateway.api.callbacks.pending import PendingCallback
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.work import Work
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import configure_logging

Result = TypeVar("Result")


def run(coroutine: Awaitable[Result]) -> Result:
    async def main() -> Result:
        return await coroutine

    return asyncio.run(main())


def test_equal_bodies_over_sixteen_connections_are_one_row_and_sixteen_answers(
    harness: InboxHarness,
) -> None:
    """The naive flusher answered 200 to none of them: one statement met a key twice."""
    token = harness.new_token()

    async def main() -> list[Verdict]:
        return await asyncio.gather(*(harness.put(token, b"same") for _ in range(16)))

    for _ in range(20):
        assert asyncio.run(main()) == [Verdict.KEPT] * 16
    assert harness.rows("SELECT copies FROM callbacks") == [(320,)]
    assert len(harness.notifier.take()) == 1


class LookingNotifier(CollectingNotifier):
    """Looks at once for the row that it announces, as a quick worker does."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.found: list[int] = []

    def notify(self, work: list[Work]) -> None:
        super().notify(work)
        with psycopg.connect(self.url) as worker:
            rows = worker.execute(
                "SELECT id FROM callbacks WHERE id = ANY(%s)", [[it.id for it in work]]
            )
            self.found += [row[0] for row in rows]


def test_who_is_woken_finds_the_row(pool: Pool) -> None:
    harness = InboxHarness(pool)
    harness.notifier = notifier = LookingNotifier(harness.url)
    harness.inbox = harness.new_inbox()
    harness.inbox.start()
    try:
        assert run(harness.put(harness.new_token(), b"{}")) is Verdict.KEPT
    finally:
        harness.inbox.stop()

    assert len(notifier.found) == 1
    assert [it.id for it in notifier.take()] == notifier.found


def test_two_processes_that_meet_the_same_keys_in_opposite_orders_do_not_lock_each_other_out(
    harness: InboxHarness,
) -> None:
    other = harness.new_inbox()
    other.start()
    tokens = [harness.new_token(number) for number in range(8)]
    errors: list[Exception] = []

    def hammer(inbox: Inbox, order: list[CallbackToken]) -> None:
        async def main() -> None:
            for _ in range(40):
                puts = (inbox.put(token, b"x" * 100, {}, ADDRESS) for token in order)
                await asyncio.gather(*puts)

        try:
            asyncio.run(main())
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the test
            errors.append(error)

    threads = [
        threading.Thread(target=hammer, args=[harness.inbox, tokens]),
        threading.Thread(target=hammer, args=[other, tokens[::-1]]),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.stop()

    assert errors == []
    assert harness.rows("SELECT DISTINCT copies FROM callbacks") == [(80,)]


def test_one_bad_row_harms_only_its_own_request(harness: InboxHarness) -> None:
    """A constraint of the database refuses one body; the 63 beside it are kept."""
    with psycopg.connect(harness.url) as conn:
        conn.execute("ALTER TABLE callbacks ADD CHECK (body <> 'bad'::bytea)")
    tokens = [harness.new_token(number) for number in range(64)]

    async def main() -> list[Verdict | BaseException]:
        bodies = [b"bad" if number == 17 else b"good" for number in range(64)]
        puts = (harness.put(*pair) for pair in zip(tokens, bodies, strict=True))
        return await asyncio.gather(*puts, return_exceptions=True)

    results = asyncio.run(main())

    assert isinstance(results[17], UnavailableError)
    assert [it for number, it in enumerate(results) if number != 17] == [Verdict.KEPT] * 63
    assert harness.rows("SELECT count(*) FROM callbacks") == [(63,)]
    assert run(harness.put(tokens[0], b"and on it goes")) is Verdict.KEPT


def test_a_row_that_a_constraint_refused_is_not_shown(
    harness: InboxHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    """Postgres tells the whole row; its body may hold a phone, in hexadecimal."""
    body = b"Jane 0712345678"
    with psycopg.connect(harness.url) as conn:
        conn.execute("ALTER TABLE callbacks ADD CONSTRAINT no_jane CHECK (length(body) <> 15)")
    with logging_restored():
        configure_logging("json", "INFO")
        with pytest.raises(UnavailableError):
            run(harness.put(harness.new_token(), body))
        # The answer comes before the line.
        harness.inbox.stop()

    said = capsys.readouterr().out
    assert "no_jane" in said
    assert body.hex() not in said
    assert "Failing row contains (***)" in said


def test_a_waiter_that_hung_up_does_not_stop_the_flusher(harness: InboxHarness) -> None:
    token = harness.new_token()

    async def main() -> Verdict:
        gone = [asyncio.create_task(harness.put(token, b"%d" % it)) for it in range(10)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        return await harness.put(token, b"still here")

    assert asyncio.run(main()) is Verdict.KEPT
    wait_for(lambda: harness.rows("SELECT count(*) FROM callbacks") == [(11,)])


def test_an_event_loop_that_ended_does_not_stop_the_flusher(harness: InboxHarness) -> None:
    token = harness.new_token()

    async def leave() -> None:
        asyncio.create_task(harness.put(token, b"nobody waits"))  # noqa: RUF006
        await asyncio.sleep(0)

    for _ in range(5):
        asyncio.run(leave())

    assert run(harness.put(token, b"still here")) is Verdict.KEPT


def test_a_slow_database_is_a_503_in_time_and_the_callback_is_kept_all_the_same(
    harness: InboxHarness,
) -> None:
    token = harness.new_token()
    with psycopg.connect(harness.url) as conn:
        conn.execute("LOCK TABLE callbacks IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            run(harness.put(token, b"late"))
        assert time.monotonic() - started < PROMPTLY_S

    wait_for(lambda: harness.rows("SELECT body FROM callbacks") == [(b"late",)])


def test_behind_a_line_that_waits_for_long_the_503_comes_at_once_and_all_is_kept(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting would end in a 503 too; who was in the line is served before who came late."""
    monkeypatch.setattr(inbox_module, "LATE_S", 0.1)
    monkeypatch.setattr(inbox_module, "ACK_TIMEOUT_S", 20.0)
    token = harness.new_token()

    async def main(conn: psycopg.Connection) -> tuple[list[Verdict], list[bool]]:
        in_hand = asyncio.create_task(harness.put(token, b"in hand"))
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_for, lambda: harness.inbox._line.first is None)
        in_line = asyncio.create_task(harness.put(token, b"in line"))
        await asyncio.sleep(0.2)
        for number in range(3):
            with pytest.raises(UnavailableError):
                await harness.put(token, b"late %d" % number)
        unanswered = [not in_hand.done(), not in_line.done()]
        conn.rollback()
        return list(await asyncio.gather(in_hand, in_line)), unanswered

    with psycopg.connect(harness.url) as conn:
        conn.execute("LOCK TABLE callbacks IN ACCESS EXCLUSIVE MODE")
        verdicts, unanswered = asyncio.run(main(conn))

    assert unanswered == [True, True]
    assert list(verdicts) == [Verdict.KEPT] * 2
    wait_for(lambda: harness.rows("SELECT count(*) FROM callbacks") == [(5,)])
    bodies = [bytes(row[0]) for row in harness.rows("SELECT body FROM callbacks ORDER BY id")]  # type: ignore[call-overload]  # rows are of objects
    assert bodies[:2] == [b"in hand", b"in line"]


def test_a_full_queue_is_a_503_at_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING", 3)
    harness = InboxHarness(pool)  # not started: nothing is taken
    token = harness.new_token()

    async def main() -> list[BaseException | Verdict]:
        tasks = [asyncio.create_task(harness.put(token, b"x")) for _ in range(4)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=1)
        (refused,) = done
        harness.inbox.start()
        rest = await asyncio.gather(*(set(tasks) - done))
        harness.inbox.stop()
        error = refused.exception()
        assert error is not None
        return [error, *rest]

    error, *rest = asyncio.run(main())
    assert isinstance(error, UnavailableError)
    assert rest == [Verdict.KEPT] * 3


def test_too_many_bytes_in_the_queue_are_a_503_at_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING_BYTES", 1000)
    harness = InboxHarness(pool)

    with pytest.raises(UnavailableError):
        run(harness.put(None, b"x" * 1001))


def test_large_bodies_go_in_several_statements(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twelve megabytes on a machine that others use take their time; that is not asked here.
    monkeypatch.setattr(inbox_module, "ACK_TIMEOUT_S", 20.0)
    token = harness.new_token()

    async def main() -> list[Verdict]:
        bodies = [bytes([number]) * 1_000_000 for number in range(12)]
        return await asyncio.gather(*(harness.put(token, body) for body in bodies))

    assert asyncio.run(main()) == [Verdict.KEPT] * 12
    assert harness.rows("SELECT sum(octet_length(body)) FROM callbacks") == [(12_000_000,)]


def test_what_waits_is_kept_before_the_end(pool: Pool) -> None:
    """SIGTERM with a full queue: everything that was taken is answered."""
    harness = InboxHarness(pool)
    token = harness.new_token()

    async def main() -> list[Verdict]:
        tasks = [asyncio.create_task(harness.put(token, b"%d" % it)) for it in range(500)]
        await asyncio.sleep(0)
        harness.inbox.start()
        await asyncio.to_thread(harness.inbox.stop)
        with pytest.raises(UnavailableError):
            await harness.put(token, b"too late")
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [Verdict.KEPT] * 500
    assert harness.rows("SELECT count(*) FROM callbacks") == [(500,)]


def test_a_bug_in_the_flusher_is_a_503_and_not_its_end(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = harness.new_token()
    with monkeypatch.context() as patched:
        patched.setattr(harness.merchant.__class__, "allowed_networks", property(fail))
        with pytest.raises(UnavailableError):
            run(harness.put(token, b"x"))

    assert run(harness.put(token, b"x")) is Verdict.KEPT


def fail(_: object) -> None:
    raise RuntimeError("a bug")


def test_a_row_that_postgres_did_not_write_is_no_200(harness: InboxHarness) -> None:
    """Somebody's trigger swallows it, without an error."""
    with psycopg.connect(harness.url) as conn:
        conn.execute(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RETURN CASE WHEN NEW.body = ''bad'' THEN NULL ELSE NEW END; END'"
        )
        conn.execute(
            "CREATE TRIGGER swallow BEFORE INSERT ON callbacks"
            " FOR EACH ROW EXECUTE FUNCTION swallow()"
        )
    tokens = [harness.new_token(number) for number in range(3)]

    async def main() -> list[Verdict | BaseException]:
        puts = (
            harness.put(token, b"bad" if number == 1 else b"good")
            for number, token in enumerate(tokens)
        )
        return await asyncio.gather(*puts, return_exceptions=True)

    first, swallowed, third = asyncio.run(main())

    assert isinstance(swallowed, UnavailableError)
    assert [first, third] == [Verdict.KEPT] * 2


def test_an_arrival_shows_no_future_in_its_repr() -> None:
    loop = asyncio.new_event_loop()
    arrival = PendingCallback(None, b"", {}, ADDRESS, datetime.now(UTC), loop.create_future())
    loop.close()

    assert "future" not in repr(arrival)

"""Above capacity: who cannot be answered in time is sent away at once, commits go to the others."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from harness.inbox import InboxHarness
from harness.waiting import wait_for
from mpesa_gateway.api.callbacks import inbox as inbox_module
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.store.pool import Pool


async def put_all(harness: InboxHarness, count: int) -> list[asyncio.Task[Verdict]]:
    """So many at once, each with its turn to be refused."""
    token = harness.new_token()
    tasks = [asyncio.create_task(harness.put(token, b"%d" % it)) for it in range(count)]
    await asyncio.sleep(0)
    return tasks


def refused(task: asyncio.Task[Verdict]) -> bool:
    return task.done() and isinstance(task.exception(), UnavailableError)


@pytest.mark.parametrize(
    ("pace_s", "is_flushing", "admitted"),
    [
        (0.0, True, 12),
        (0.09, True, 12),
        # Two flushes of 0.3 s before the own one make 0.9 s, three would make 1.2 s.
        (0.3, False, 6),
        (0.3, True, 4),
        # Too slow for anybody; but somebody must try, or nothing would ever be answered again.
        (5.0, False, 2),
        (5.0, True, 0),
    ],
)
def test_a_line_is_as_long_as_can_be_answered_in_time(
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    pace_s: float,
    is_flushing: bool,
    admitted: int,
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_BATCH", 2)
    monkeypatch.setattr(inbox_module, "ACK_TIMEOUT_S", 20.0)
    harness = InboxHarness(pool)  # not started: nothing is taken
    harness.inbox._pace_s, harness.inbox._is_flushing = pace_s, is_flushing

    async def main() -> list[bool]:
        tasks = await put_all(harness, 12)
        sent_away = [refused(task) for task in tasks]
        harness.inbox.start()
        await asyncio.wait(tasks)
        return sent_away

    assert asyncio.run(main()) == [False] * admitted + [True] * (12 - admitted)
    # Who was sent away is kept too, once the line has gone.
    wait_for(lambda: harness.rows("SELECT count(*) FROM callbacks") == [(12,)])
    harness.inbox.stop()


def test_the_pace_is_the_median_of_what_was_committed(pool: Pool) -> None:
    """One slow commit, or a Postgres that is away for a moment, sends nobody away."""
    harness = InboxHarness(pool)
    harness.inbox.start()
    token = harness.new_token()
    for number in range(4):
        assert asyncio.run(harness.put(token, b"%d" % number)) is Verdict.KEPT
    with psycopg.connect(harness.url) as conn:
        conn.execute("LOCK TABLE callbacks IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(UnavailableError):
            asyncio.run(harness.put(token, b"slow"))
    wait_for(lambda: harness.rows("SELECT count(*) FROM callbacks") == [(5,)])
    harness.inbox.stop()

    slowest = max(harness.inbox._flushes_s)
    assert slowest > 1
    assert harness.inbox._pace_s < slowest / 2


def test_who_waits_for_no_answer_any_more_stands_aside(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_BATCH", 1)
    harness = InboxHarness(pool)
    harness.inbox.start()
    token = harness.new_token()

    async def main(conn: psycopg.Connection) -> None:
        in_hand = asyncio.create_task(harness.put(token, b"in hand"))
        await asyncio.to_thread(wait_for, lambda: harness.inbox._is_flushing)
        monkeypatch.setattr(inbox_module, "ACK_TIMEOUT_S", 0.05)
        given_up = [asyncio.create_task(harness.put(token, b"given up")) for _ in range(3)]
        await asyncio.wait(given_up)
        assert all(refused(task) for task in given_up)
        monkeypatch.setattr(inbox_module, "ACK_TIMEOUT_S", 20.0)
        waiting = asyncio.create_task(harness.put(token, b"still waits"))
        await asyncio.sleep(0)
        conn.rollback()
        assert await waiting is Verdict.KEPT
        await asyncio.wait([in_hand])

    with psycopg.connect(harness.url) as conn:
        conn.execute("LOCK TABLE callbacks IN ACCESS EXCLUSIVE MODE")
        asyncio.run(main(conn))
    wait_for(lambda: len(harness.rows("SELECT FROM callbacks")) == 3)
    harness.inbox.stop()

    rows = harness.rows("SELECT body, copies FROM callbacks ORDER BY id")
    assert rows == [(b"in hand", 1), (b"still waits", 1), (b"given up", 3)]


def test_what_is_kept_for_later_is_bounded(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_BATCH", 1)
    monkeypatch.setattr(inbox_module, "MAX_LATE", 3)
    harness = InboxHarness(pool)
    harness.inbox._pace_s, harness.inbox._is_flushing = 5.0, True

    async def main() -> None:
        tasks = await put_all(harness, 10)
        assert all(refused(task) for task in tasks)

    asyncio.run(main())
    harness.inbox.start()
    harness.inbox.stop()

    assert harness.rows("SELECT count(*) FROM callbacks") == [(3,)]

"""Whose a callback is and whether it may be kept: a verdict for each, whoever shares the batch."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from harness.factories import make_merchant
from harness.inbox import ADDRESS, InboxHarness
from mpesa_gateway.api.callbacks.batch_writer import merge
from mpesa_gateway.api.callbacks.pending import PendingCallback
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.merchant import parse_networks
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store.inbox import NOBODY, Denial, Verdict
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.usecases.finalize import new_id

Result = TypeVar("Result")


def run(coroutine: Awaitable[Result]) -> Result:
    async def main() -> Result:
        return await coroutine

    return asyncio.run(main())


def flushed_together(harness: InboxHarness, puts: Sequence[Sequence[Any]]) -> list[Verdict]:
    """Token, body and address of each; the inbox begins once all of them wait."""

    async def main() -> list[Verdict]:
        waiting = [harness.inbox.put(token, body, {}, address) for token, body, address in puts]
        tasks = [asyncio.create_task(put) for put in waiting]
        await asyncio.sleep(0)
        harness.inbox.start()
        return await asyncio.gather(*tasks)

    verdicts = asyncio.run(main())
    harness.inbox.stop()
    return verdicts


@pytest.mark.parametrize(
    ("token", "verdict"),
    [
        (lambda good: good, Verdict.KEPT),
        (lambda _: None, Verdict.KEPT),
        (lambda good: CallbackToken(good.transaction, b"\0" * 16), Verdict.UNKNOWN_TOKEN),
        (
            lambda good: CallbackToken(new_id(datetime.now(UTC)), good.secret),
            Verdict.UNKNOWN_TOKEN,
        ),
    ],
    ids=["good", "plain", "wrong secret", "unknown transaction"],
)
def test_tokens_decide(
    harness: InboxHarness,
    token: Callable[[CallbackToken], CallbackToken | None],
    verdict: Verdict,
) -> None:
    assert run(harness.put(token(harness.new_token()), b"x")) is verdict
    kept = [(1,)] if verdict is Verdict.KEPT else [(0,)]
    assert harness.rows("SELECT count(*) FROM callbacks") == kept


def test_one_batch_of_every_kind_has_a_verdict_for_each(pool: Pool) -> None:
    """They share a statement, in any order; each hears of its own."""
    listed = parse_networks(["196.201.214.0/24"])
    harness = InboxHarness(pool, merchant=make_merchant(name="default", allowed_networks=listed))
    good, other = harness.new_token(1), harness.new_token(2)
    forged = CallbackToken(good.transaction, bytes(16))
    elsewhere = ipaddress.ip_address("198.51.100.7")
    asked = [
        (forged, b"1", ADDRESS, Verdict.UNKNOWN_TOKEN),
        (good, b"1", ADDRESS, Verdict.KEPT),
        (None, b"1", elsewhere, Verdict.KEPT),
        (good, b"1", elsewhere, Verdict.NOT_ALLOWED),
        (other, b"2", ADDRESS, Verdict.KEPT),
        (good, b"1", ADDRESS, Verdict.KEPT),
        (None, b"1", ADDRESS, Verdict.KEPT),
        (forged, b"2", elsewhere, Verdict.UNKNOWN_TOKEN),
    ]

    verdicts = flushed_together(harness, [put for *put, _ in asked])

    assert verdicts == [verdict for *_, verdict in asked]
    rows = harness.rows(
        "SELECT transaction_id, by_token, body, host(source), copies FROM callbacks"
        " ORDER BY transaction_id, source"
    )
    assert rows == [
        (1, True, b"1", str(ADDRESS), 2),
        (2, True, b"2", str(ADDRESS), 1),
        (None, False, b"1", str(ADDRESS), 1),
        (None, False, b"1", str(elsewhere), 1),
    ]
    assert len(harness.notifier.take()) == 4


def test_the_merchants_list_narrows_the_token_path(pool: Pool) -> None:
    elsewhere = parse_networks(["203.0.113.0/24"])
    harness = InboxHarness(pool, merchant=make_merchant(name="default", allowed_networks=elsewhere))
    harness.inbox.start()
    verdict = run(harness.put(harness.new_token(), b"x"))
    harness.inbox.stop()

    assert verdict is Verdict.NOT_ALLOWED
    assert harness.rows("SELECT count(*) FROM callbacks") == [(0,)]


def test_an_equal_body_from_an_address_that_may_not_is_refused_alone(pool: Pool) -> None:
    """One statement judges both: neither address decides for the other."""
    listed = parse_networks(["203.0.113.0/24"])
    harness = InboxHarness(pool, merchant=make_merchant(name="default", allowed_networks=listed))
    token = harness.new_token()
    addresses = [ipaddress.ip_address(it) for it in ("203.0.113.9", "198.51.100.7", "203.0.113.8")]

    verdicts = flushed_together(harness, [(token, b"x", address) for address in addresses])

    assert verdicts == [Verdict.KEPT, Verdict.NOT_ALLOWED, Verdict.KEPT]
    assert harness.rows("SELECT host(source), copies FROM callbacks") == [("203.0.113.9", 2)]


def test_addresses_that_other_merchants_refuse_share_a_row_all_the_same(pool: Pool) -> None:
    """Two groups of one key: the statement fails, and each is kept alone."""
    harness = InboxHarness(pool)
    other = make_merchant(name="a/b", allowed_networks=parse_networks(["203.0.113.0/24"]))
    both = Snapshot({it.name: it for it in (harness.merchant, other)})
    harness.merchants = lambda: both
    harness.inbox = harness.new_inbox()
    token = harness.new_token()
    addresses = [ipaddress.ip_address(it) for it in ("203.0.113.9", "198.51.100.7")]

    verdicts = flushed_together(harness, [(token, b"x", address) for address in addresses])

    assert verdicts == [Verdict.KEPT] * 2
    assert harness.rows("SELECT copies FROM callbacks") == [(2,)]


def test_the_lists_of_this_moment_count(pool: Pool) -> None:
    """What was looked up of the merchants before is not used for those of now."""
    harness = InboxHarness(pool)
    snapshots = [harness.snapshot()]
    harness.merchants = lambda: snapshots[-1]
    harness.inbox = harness.new_inbox()
    harness.inbox.start()
    token = harness.new_token()
    before = run(harness.put(token, b"1"))
    elsewhere = parse_networks(["203.0.113.0/24"])
    snapshots.append(
        Snapshot({"default": make_merchant(name="default", allowed_networks=elsewhere)})
    )
    during = run(harness.put(token, b"2"))
    snapshots.append(snapshots[0])
    after = run(harness.put(token, b"3"))
    harness.inbox.stop()

    assert [before, during, after] == [Verdict.KEPT, Verdict.NOT_ALLOWED, Verdict.KEPT]


@pytest.mark.parametrize("secret", ["good", "wrong"])
def test_an_address_outside_the_platforms_list_is_refused_whoever_the_merchant(
    pool: Pool, secret: str
) -> None:
    """A wrong secret stays an unknown token: an address learns nothing of which tokens are good."""
    harness = InboxHarness(pool, platform=parse_networks(["203.0.113.0/24"]))
    harness.inbox.start()
    token = harness.new_token()
    if secret == "wrong":
        token = CallbackToken(token.transaction, bytes(16))
    verdict = run(harness.put(token, b"x"))
    harness.inbox.stop()

    expected = Verdict.NOT_ALLOWED if secret == "good" else Verdict.UNKNOWN_TOKEN
    assert verdict is expected
    assert harness.rows("SELECT count(*) FROM callbacks") == [(0,)]


def test_merging_puts_equal_keys_together_and_keeps_plain_ones_apart() -> None:
    one, other = (CallbackToken(new_id(datetime.now(UTC)), bytes(16)) for _ in range(2))
    forged = CallbackToken(one.transaction, b"\1" * 16)
    elsewhere = Denial(merchants='["default"]')
    loop = asyncio.new_event_loop()

    def arrive(token: CallbackToken | None, body: bytes) -> PendingCallback:
        digest = hashlib.sha256(body).digest()
        future: asyncio.Future[Verdict] = loop.create_future()
        return PendingCallback(token, body, {}, ADDRESS, datetime.now(UTC), future, sha256=digest)

    arrivals = [
        (arrive(one, b"a"), NOBODY),
        (arrive(None, b"x"), NOBODY),
        (arrive(other, b"a"), NOBODY),
        (arrive(one, b"a"), NOBODY),
        (arrive(forged, b"a"), NOBODY),
        (arrive(one, b"a"), elsewhere),
        (arrive(None, b"x"), NOBODY),
    ]
    loop.close()

    assert [len(group) for group, _ in merge(arrivals)] == [2, 1, 1, 1, 1, 1]

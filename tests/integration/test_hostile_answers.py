"""Whatever a peer answers: read to a limit, never decoded, never an exception, told as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import pytest
import requests

from harness.factories import make_merchant
from harness.hostile import (
    HostilePeer,
    Reply,
    badly_framed,
    forget_peak,
    peak_bytes,
    replies,
)
from mpesa_gateway.clients.daraja import Daraja, Push
from mpesa_gateway.clients.deadline import current_exchange
from mpesa_gateway.clients.egress import Guard, new_session
from mpesa_gateway.clients.webhooks import WebhookClient
from mpesa_gateway.domain.delivery import Attempt
from mpesa_gateway.domain.oauth import TokenAnswer
from mpesa_gateway.domain.push import PushOutcome
from mpesa_gateway.domain.query import Asked, QueryOutcome

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
MORE_MEMORY = 8 * 1024 * 1024
# What the kernel takes from a sender that nobody reads: its largest receive buffer, and ours.
KERNEL_BUFFERS = 16 * 1024 * 1024
# Only for a peer that this test forgot to let end: nothing here may come near it.
DEADLINE_S = 8.0

Call = Callable[[], Attempt | PushOutcome | QueryOutcome | TokenAnswer]


@pytest.fixture
def peer() -> Iterator[HostilePeer]:
    with HostilePeer() as running:
        yield running


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with new_session(Guard(vet=False), user_agent="test") as opened:
        yield opened


def calls(session: requests.Session, url: str) -> dict[str, Call]:
    """The four calls that leave the gateway."""
    daraja = Daraja(session, lambda: NOW)
    merchant = make_merchant(base_url=url)
    push = Push(merchant, Decimal(10), "254708374149", "https://pay.example/c", "INV-1", "Shoes")
    webhooks = WebhookClient(session, deadline_s=DEADLINE_S)
    return {
        "webhook": partial(webhooks.post, url, b"{}", {}, NOW),
        "push": partial(daraja.push, push, "token"),
        "query": partial(daraja.query, merchant, Asked("ws_CO_1"), "token"),
        "token": partial(daraja.fetch_token, url, "key", "secret"),
    }


def webhook_must(reply: Reply) -> tuple[object, ...]:
    """Outcome and status code; a 2xx is a success whatever follows it."""
    is_success = reply.status is not None and 200 <= reply.status < 300
    return ("delivered" if is_success else "failed", reply.status)


def push_must(reply: Reply) -> tuple[object, ...]:
    """Nobody was certainly not charged, but for the throttle's own status."""
    return ("NOT_SENT",) if reply.status == 429 else ("UNKNOWN",)


def query_must(reply: Reply) -> tuple[object, ...]:
    return ("SLOW_DOWN",) if reply.status == 429 else ("NO_INFORMATION",)


def token_must(reply: Reply) -> tuple[object, ...]:
    """No token; the credentials are refused by nothing but an answer that can be read."""
    return (None, reply.readable and reply.status in (400, 401))


def said(it: Attempt | PushOutcome | QueryOutcome | TokenAnswer) -> tuple[object, ...]:
    if isinstance(it, Attempt):
        return (it.outcome, it.response_status_code)
    if isinstance(it, TokenAnswer):
        return (it.token, it.refused)
    return (it.kind,)


MUST: dict[str, Callable[[Reply], tuple[object, ...]]] = {
    "webhook": webhook_must,
    "push": push_must,
    "query": query_must,
    "token": token_must,
}


@pytest.mark.parametrize("call", MUST)
def test_no_answer_costs_memory_or_raises_or_is_told_as_another(
    peer: HostilePeer, session: requests.Session, call: str
) -> None:
    ask, must = calls(session, peer.url)[call], MUST[call]
    everything = [*replies(), *badly_framed()]
    # Buffers, threads and bombs that are made once.
    for peer.reply in everything[:200]:
        ask()
    before = forget_peak()
    misses = []
    for peer.reply in everything:
        requests_before = peer.requests
        try:
            found = said(ask())
        except Exception as error:  # noqa: BLE001 - the miss that this test looks for
            found = (repr(error),)
        if found != must(peer.reply) or peer.requests != requests_before + 1:
            misses.append((peer.reply.name, found, must(peer.reply)))
    grown = peak_bytes() - before

    assert misses == []
    assert grown <= MORE_MEMORY
    assert peer.most_sent <= KERNEL_BUFFERS


class BrokenSession(requests.Session):
    """A library with a fault of its own, before or after the request has left."""

    def __init__(self, error: Exception, *, leaves: bool) -> None:
        super().__init__()
        self._error, self._leaves = error, leaves

    def send(self, *_: object, **__: object) -> requests.Response:
        current_exchange().sent = self._leaves
        raise self._error


@pytest.mark.parametrize("leaves", [True, False], ids=["sent", "not sent"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("x"),
        OverflowError("x"),
        RecursionError("x"),
        UnicodeDecodeError("x", b"", 0, 1, "x"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_an_error_that_nobody_thought_of_is_told_by_what_had_left(
    error: Exception, leaves: bool, caplog: pytest.LogCaptureFixture
) -> None:
    session = BrokenSession(error, leaves=leaves)
    told = {name: ask() for name, ask in calls(session, "http://127.0.0.1:1").items()}

    assert said(told["webhook"]) == ("failed", None)
    assert said(told["push"]) == (("UNKNOWN",) if leaves else ("NOT_SENT",))
    assert said(told["query"]) == ("NO_INFORMATION",)
    assert said(told["token"]) == (None, False)
    assert caplog.text.count(type(error).__name__) >= 4

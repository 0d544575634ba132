"""POST /initiate while Safaricom, or who stands in front of it, answers what no client expects."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial

import pytest

from harness.gateway import Gateway
from harness.hostile import Reply, badly_framed, bomb, raw
from harness.initiate import assert_pending
from harness.problems import assert_problem
from harness.safaricom import FakeSafaricom, accepted, error

Phones = Callable[[str], str]
GZIP = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Encoding: gzip\r\nLocation: /else\r\n\r\n"
FRAMED = badly_framed()


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found", b"401 No", b"503 Busy"])
def test_a_push_with_a_compressed_answer_is_pending(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, status: bytes
) -> None:
    safaricom.token()
    endless = itertools.repeat(bomb("gzip"))
    safaricom.answers.append(raw(lambda: itertools.chain([GZIP % status], endless)))

    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "UNKNOWN")


@pytest.mark.parametrize("reply", FRAMED, ids=[it.name for it in FRAMED])
def test_a_push_with_a_badly_framed_answer_is_pending(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, reply: Reply
) -> None:
    safaricom.token()
    safaricom.answers.append(raw(reply.pieces))

    assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "UNKNOWN")


def test_json_that_calls_itself_compressed_is_no_json(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones
) -> None:
    safaricom.token()
    for body in (accepted(), error("400.002.02")):
        lie = GZIP % b"200 OK" + json.dumps(body).encode()
        safaricom.answers.append(raw(partial(list, [lie])))

        assert_pending(by_hand, by_hand.initiate(new_phone("0000")), "UNKNOWN")


@pytest.mark.parametrize("reply", FRAMED, ids=[it.name for it in FRAMED])
def test_without_a_token_that_can_be_read_nothing_is_sent(
    by_hand: Gateway, safaricom: FakeSafaricom, new_phone: Phones, reply: Reply
) -> None:
    safaricom.answers.append(raw(reply.pieces))

    assert_problem(by_hand.initiate(new_phone("0000")), 503, "not-sent")
    assert safaricom.pushed == []

"""The check of credentials: what an answer says, and when to ask again."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.collecting import every_case
from harness.hostile import (
    HostilePeer,
    Reply,
    badly_framed,
    forget_peak,
    peak_bytes,
    replies,
)
from harness.operating import HOUR, NOON, SEAL
from mpesa_gateway.domain.merchant import Credentials
from mpesa_operator.answers import new_session
from mpesa_operator.credentials import credentials_digest
from mpesa_operator.daraja import (
    Check,
    Outcome,
    _ask_once,
    ask,
    check_due,
    classify,
    valid_condition,
)
from mpesa_operator.platform_settings import CHECK_INTERVAL, CHECK_PATIENCE, CHECK_RETRY
from mpesa_operator.pod_poller import PodWatch
from mpesa_operator.pods import PodAddress, read_report
from mpesa_operator.seal import Seal

TOKEN = b'{"access_token": "abc", "expires_in": "3599"}'


@every_case(
    ("status", "body", "outcome"),
    [
        (200, TOKEN, "valid"),
        (400, b'{"errorCode": "400.008.01"}', "rejected"),
        (401, b"", "rejected"),
        (200, b"{}", "unreachable"),
        (200, b"[]", "unreachable"),
        (200, b"<html>", "unreachable"),
        (302, b"", "unreachable"),
        (403, b"<html>denied</html>", "unreachable"),
        (404, TOKEN, "unreachable"),
        (429, b"{}", "unreachable"),
        (500, b"{}", "unreachable"),
        (503, TOKEN, "unreachable"),
    ],
)
def test_only_400_and_401_speak_against_the_credentials(
    status: int, body: bytes, outcome: str
) -> None:
    assert classify(status, body) == outcome


def test_new_credentials_are_asked_about_once() -> None:
    assert check_due(Check(), "d", "uid", NOON)
    assert check_due(Check("other", "valid", NOON), "d", "uid", NOON)
    assert not check_due(Check(pending="d", pending_since=NOON), "d", "uid", NOON + HOUR)
    assert check_due(Check(pending="other", pending_since=NOON), "d", "uid", NOON)


@pytest.mark.parametrize(
    ("outcome", "wait"),
    [("valid", CHECK_INTERVAL), ("rejected", CHECK_INTERVAL), ("unreachable", CHECK_RETRY)],
)
def test_they_are_asked_about_again_a_little_before_the_interval(
    outcome: Outcome, wait: timedelta
) -> None:
    check = Check("d", outcome, NOON)
    assert not check_due(check, "d", "uid", NOON + wait * 0.79)
    assert check_due(check, "d", "uid", NOON + wait)


def test_merchants_are_not_all_asked_after_at_one_moment() -> None:
    check, late = Check("d", "valid", NOON), NOON + CHECK_INTERVAL * 0.9
    due = [check_due(check, "d", f"uid-{number}", late) for number in range(200)]
    assert 60 < sum(due) < 140


def test_the_condition() -> None:
    def reason(check: Check, digest: str | None = "d", after: timedelta = timedelta(0)) -> str:
        return valid_condition(check, digest, NOON + after).reason

    pending = Check(pending="d", pending_since=NOON)
    assert reason(pending) == "Checking"
    assert reason(pending, after=CHECK_PATIENCE) == "NotChecked"
    assert reason(Check()) == "NotChecked"
    assert reason(Check("d", "valid", NOON), None) == "NotChecked"
    assert reason(Check("other", "valid", NOON)) == "NotChecked"
    assert reason(Check("d", "valid", NOON)) == "TokenIssued"
    # While it is asked about again, what was known stands.
    again = Check("d", "valid", NOON, pending="d", pending_since=NOON)
    assert reason(again) == "TokenIssued"


def test_the_digest_knows_key_and_secret_and_not_the_passkey() -> None:
    one = credentials_digest(SEAL, "uid", Credentials("k", "s", "p"))
    assert one == credentials_digest(SEAL, "uid", Credentials("k", "s", "other"))
    assert one != credentials_digest(SEAL, "uid", Credentials("k", "other", "p"))
    assert one != credentials_digest(SEAL, "uid", Credentials("other", "s", "p"))
    assert one != credentials_digest(SEAL, "other", Credentials("k", "s", "p"))
    assert one != credentials_digest(Seal(b"another's"), "uid", Credentials("k", "s", "p"))
    assert len(one) == 16


def asked(url: str, key: str, secret: str) -> str:
    async def once() -> str:
        async with aiohttp.ClientSession() as session:
            return await ask(session, url, Credentials(key, secret, "passkey"))

    return asyncio.run(once())


def test_daraja_is_asked() -> None:
    with RunningSimulator(Settings(credentials={"key": "secret"})) as simulator:
        assert asked(simulator.url, "key", "secret") == "valid"
        assert asked(simulator.url, "key", "wrong") == "rejected"
        assert asked(simulator.url, "with:colon", "secret") == "rejected"


def test_nobody_answers() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        assert asked(url, "key", "secret") == "unreachable"


def test_a_refusal_without_a_word_is_asked_for_once_more() -> None:
    refused = Reply("400", lambda: [b"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n"], 400)
    granted = Reply("200", lambda: [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + TOKEN], 200)
    with HostilePeer() as peer:
        turns = iter([refused, granted])
        peer.reply = Reply("in turn", lambda: next(turns).pieces())
        assert asked(peer.url, "key", "secret") == "valid"
        peer.reply = refused
        assert asked(peer.url, "key", "secret") == "rejected"


def test_the_gateways_own_sentence_about_tokens_says_nothing_about_credentials() -> None:
    fault = (
        b'{"fault":{"faultstring":"Invalid Access Token","detail":'
        b'{"errorcode":"keymanagement.service.invalid_access_token"}}}'
    )
    throttled = (
        b'{"fault":{"faultstring":"Spike arrest violation","detail":'
        b'{"errorcode":"policies.ratelimit.SpikeArrestViolation"}}}'
    )
    assert classify(401, fault) == "unreachable"
    assert classify(401, throttled) == "unreachable"


def test_no_answer_stops_the_operator_or_costs_it_memory() -> None:
    """Every answer of the gateway's own matrix, to the operator's two calls."""
    # Interim answers without end cost it the whole deadline, which would take long here.
    interim = ("100 continued without end", "103 without end")
    everything = [it for it in [*replies(), *badly_framed()] if it.name not in interim]
    nobody: Any = None
    pod = PodAddress("api-1", "api", "127.0.0.1", 1)

    async def ask_all(peer: HostilePeer) -> list[tuple[str, object]]:
        told: list[tuple[str, object]] = []
        async with new_session() as session:
            watch = PodWatch(nobody, nobody, nobody, session, lambda: None)
            for peer.reply in everything:
                outcome = await _ask_once(session, peer.url, Credentials("k", "s", "p"))
                report = await watch._ask(replace(pod, port=int(peer.url.rpartition(":")[2])))
                if report is not None or outcome not in ("unreachable", "rejected"):
                    told.append((peer.reply.name, (outcome, report)))
        return told

    with HostilePeer() as peer:
        peer.reply = everything[0]
        asked(peer.url, "key", "secret")
        before = forget_peak()
        assert asyncio.run(ask_all(peer)) == []
        assert peak_bytes() - before <= 32 * 1024 * 1024


def test_a_document_nested_without_end_is_no_document() -> None:
    deep = b"[" * 60_000
    assert classify(200, deep) == "unreachable"
    with pytest.raises(ValueError, match="nested too deep"):
        read_report(deep)

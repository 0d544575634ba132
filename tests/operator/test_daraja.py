"""The check of credentials: what an answer says, and when to ask again."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta

import aiohttp
import pytest

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.operating import HOUR, NOON
from mpesa_gateway.domain.merchant import Credentials
from mpesa_operator.credentials import credentials_digest
from mpesa_operator.daraja import Check, Outcome, ask, check_due, classify, valid_condition
from mpesa_operator.platform import CHECK_INTERVAL, CHECK_PATIENCE, CHECK_RETRY

TOKEN = b'{"access_token": "abc", "expires_in": "3599"}'


@pytest.mark.parametrize(
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
    one = credentials_digest("uid", Credentials("k", "s", "p"))
    assert one == credentials_digest("uid", Credentials("k", "s", "other"))
    assert one != credentials_digest("uid", Credentials("k", "other", "p"))
    assert one != credentials_digest("uid", Credentials("other", "s", "p"))
    assert one != credentials_digest("other", Credentials("k", "s", "p"))
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

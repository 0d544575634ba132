"""Asks Daraja whether a consumer key and secret are good: one OAuth request, two for a refusal.

A new token may end the previous one of the same app, so this is done only when the credentials have
changed, and every six hours. The pods get a new one by themselves when theirs is refused.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import aiohttp

from mpesa_gateway.domain.merchant import Credentials
from mpesa_gateway.domain.oauth import classify_token
from mpesa_gateway.telemetry.log import get_logger
from mpesa_operator.answers import IDENTITY, read_body
from mpesa_operator.conditions import VALID, Condition
from mpesa_operator.platform_settings import CHECK_INTERVAL, CHECK_PATIENCE, CHECK_RETRY

LOGGER = get_logger(__name__)
TOKEN_PATH = "/oauth/v1/generate"  # noqa: S105 - a path
TIMEOUT_S = 10.0
LONGEST_ANSWER = 64 * 1024
SECOND_LOOK_S = 0.5

Outcome = Literal["valid", "rejected", "unreachable"]


@dataclass(frozen=True)
class Check:
    """What is known of the credentials with this digest, and whether another check is under way."""

    digest: str | None = None
    outcome: Outcome | None = None
    at: datetime | None = None
    pending: str | None = None
    pending_since: datetime | None = None


def check_due(check: Check, digest: str, uid: str, now: datetime) -> bool:
    """Whether to ask Daraja. Not all merchants are asked after at once: the uid spreads them."""
    if check.pending == digest:
        return False
    if check.digest != digest or check.at is None:
        return True
    spread = int(hashlib.sha256(uid.encode()).hexdigest()[:4], 16) / 0xFFFF
    wait = CHECK_RETRY if check.outcome == "unreachable" else CHECK_INTERVAL
    return now >= check.at + wait * (1 - spread / 5)


def classify(status: int, body: bytes) -> Outcome:
    """What an answer says about the credentials, in the gateway's own reading."""
    answer = classify_token(status, body)
    if answer.token is not None:
        return "valid"
    return "rejected" if answer.refused else "unreachable"


def valid_condition(check: Check, digest: str | None, now: datetime) -> Condition:
    """CredentialsValid. An outage of Daraja says nothing about the merchant."""
    if digest is not None and check.digest == digest and check.outcome is not None:
        return _OUTCOMES[check.outcome]
    waiting = check.pending_since is not None and now < check.pending_since + CHECK_PATIENCE
    if digest is not None and check.pending == digest and waiting:
        return Condition(VALID, "Unknown", "Checking", "Daraja is being asked for a token.")
    return Condition(VALID, "Unknown", "NotChecked", "Daraja has not been asked yet.")


_OUTCOMES = {
    "valid": Condition(VALID, "True", "TokenIssued", "Daraja gave a token for the credentials."),
    "rejected": Condition(
        VALID, "False", "Rejected", "Daraja refuses the consumer key and secret."
    ),
    "unreachable": Condition(
        VALID,
        "Unknown",
        "DarajaUnreachable",
        "Daraja gave no answer about the credentials; the merchant is served all the same.",
    ),
}


async def ask(session: aiohttp.ClientSession, base_url: str, credentials: Credentials) -> Outcome:
    """What Daraja says of the credentials. The token is thrown away.

    A refusal is asked for once more: good credentials were answered with 400 and no body now and
    then (public issues).
    """
    outcome = await _ask_once(session, base_url, credentials)
    if outcome != "rejected":
        return outcome
    await asyncio.sleep(SECOND_LOOK_S)
    again = await _ask_once(session, base_url, credentials)
    return "rejected" if again == "unreachable" else again


async def _ask_once(
    session: aiohttp.ClientSession, base_url: str, credentials: Credentials
) -> Outcome:
    pair = f"{credentials.consumer_key}:{credentials.consumer_secret}".encode()
    auth = "Basic " + base64.b64encode(pair).decode()
    try:
        async with session.get(
            f"{base_url}{TOKEN_PATH}",
            params={"grant_type": "client_credentials"},
            headers={"Authorization": auth, **IDENTITY},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            allow_redirects=False,
        ) as answer:
            return classify(answer.status, await read_body(answer, LONGEST_ANSWER))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return "unreachable"
    except Exception as error:
        # The last resort: no answer may end the operator.
        LOGGER.exception("credentials check failed unexpectedly", problem=type(error).__name__)
        return "unreachable"

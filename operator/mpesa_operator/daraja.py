"""Asks Daraja whether a consumer key and secret are good: one OAuth request.

A new token may end the previous one of the same app, so this is done only when the credentials have
changed, and every six hours. The pods get a new one by themselves when theirs is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import aiohttp

from mpesa_gateway.domain.merchant import Credentials
from mpesa_operator.answers import read_body
from mpesa_operator.conditions import VALID, Condition
from mpesa_operator.platform import CHECK_INTERVAL, CHECK_PATIENCE, CHECK_RETRY

TOKEN_PATH = "/oauth/v1/generate"  # noqa: S105 - a path
TIMEOUT_S = 10.0
LONGEST_ANSWER = 64 * 1024
REFUSALS = (400, 401)

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
    """What an answer says about the credentials. Only 400 and 401 speak against them."""
    if status in REFUSALS:
        return "rejected"
    try:
        document = json.loads(body)
    except ValueError:
        return "unreachable"
    if status == 200 and isinstance(document, dict) and document.get("access_token"):
        return "valid"
    return "unreachable"


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
    """One request. The token is thrown away."""
    pair = f"{credentials.consumer_key}:{credentials.consumer_secret}".encode()
    auth = "Basic " + base64.b64encode(pair).decode()
    try:
        async with session.get(
            f"{base_url}{TOKEN_PATH}",
            params={"grant_type": "client_credentials"},
            headers={"Authorization": auth},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            allow_redirects=False,
        ) as answer:
            return classify(answer.status, await read_body(answer, LONGEST_ANSWER))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return "unreachable"

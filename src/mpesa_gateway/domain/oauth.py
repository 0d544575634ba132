"""What OAuth's answer means: a token, refused credentials, or nothing about them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpesa_gateway.domain.push import THROTTLED_CODES, error_of, is_token_refusal, parse_answer

DEFAULT_TOKEN_LIFE_S = 3599.0
LONGEST_TOKEN_LIFE_S = 86_400.0
REFUSALS = (400, 401)
# It goes into a header.
_TOKEN = re.compile(r"[!-~]{1,4096}")
_LIFE_S = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True)
class TokenAnswer:
    """A token and its life, or why there is none; `refused` when the credentials are wrong."""

    token: str | None = None
    expires_in_s: float = 0.0
    refused: bool = False
    message: str = ""


def classify_token(status: int, body: bytes | None) -> TokenAnswer:
    """The class of an answer to a request for a token; `body` is None when it is unreadable.

    Wrong credentials are answered with 400 and no body (public issues). A throttle, and a sentence
    about a token, which this request does not carry, say nothing about them.
    """
    if body is None:
        return TokenAnswer(message=f"OAuth answered {status} with an unreadable body")
    answer = parse_answer(body) or {}
    token = answer.get("access_token")
    if status == 200 and is_token(token):
        return TokenAnswer(str(token), _read_life_s(answer.get("expires_in")))
    code, sentence = error_of(answer)
    refused = (
        status in REFUSALS and code not in THROTTLED_CODES and not is_token_refusal(code, sentence)
    )
    known = code if answer.get("errorCode") is not None else None
    message = f"OAuth answered {status}" + (f" {known}" if known is not None else "")
    return TokenAnswer(refused=refused, message=message)


def is_token(value: object) -> bool:
    """Whether it can be an access token at all."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _read_life_s(value: object) -> float:
    """Seconds, as a number or as text; the documented life where the answer makes no sense."""
    if isinstance(value, bool) or not _LIFE_S.fullmatch(str(value)[:16]):
        return DEFAULT_TOKEN_LIFE_S
    life_s = float(str(value))
    return life_s if 0 < life_s <= LONGEST_TOKEN_LIFE_S else DEFAULT_TOKEN_LIFE_S

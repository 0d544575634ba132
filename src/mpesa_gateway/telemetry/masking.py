"""What no log line and no trace may show: whole phones, Safaricom's ids, tokens, credentials.

By form where a value has one, by name where it has none, and by value for the secrets that this
process was started with.
"""

from __future__ import annotations

import re
from typing import Any

from mpesa_gateway.domain.phone import mask_phone

MAX_VALUE_LENGTH = 4000
MAX_ITEMS = 50
MAX_DEPTH = 4
MAX_NAME_LENGTH = 64
# Cut before the patterns look at it, so that a huge text costs no time; longer than what is kept.
MAX_TEXT_LENGTH = 16 * MAX_VALUE_LENGTH
# As a number, a phone has its country's code; what is smaller is an id, a size or a time.
SMALLEST_PHONE = 10**11
SHORTEST_HIDDEN = 6
MAX_HIDDEN = 64
# Most texts of a log line are the same few: those that hold nothing to mask are known again.
LONGEST_CLEAN = 64
MAX_CLEAN = 2048

_HIDDEN_NAMES = (
    "secret|password|passkey|passwd|api_?-?key|consumer_?-?key|authorization|credential"
    "|access_?-?token|callback_?-?url|checkout_?-?request_?-?id|x-signature|webhook-signature"
)
# Values under these names are dropped whole, whatever they look like.
_SECRET_NAME = re.compile(_HIDDEN_NAMES, re.IGNORECASE)
# The same inside a text: `"Password": "…"`, `api_key=…`, and Postgres' `Key (name)=(…)`.
_LABELLED = re.compile(
    rf"((?:{_HIDDEN_NAMES})[\w-]{{0,16}}[\\\"')]{{0,3}}\s?[:=]\s?)"
    r"(?:\\*\"[^\"]*\"?|'[^']*'?|\(?[^\s\"',;&)}\\]+)",
    re.IGNORECASE,
)
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9A-Za-z])"
_GAP = r"(?:[ .()/+\u00a0\u2009-]|%[0-9A-Fa-f]{2}|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}){0,3}"
# A UUID is stepped over: its last group may look like a phone. Letters may touch a phone, other
# digits may not, so that no trace id is torn.
_PHONE = re.compile(
    rf"(?<![0-9A-Za-z])(?P<id>{_UUID})"
    r"|(?P<before>%[0-9A-Fa-f]{2}|(?<![0-9A-Za-z])[A-Za-z]*)(?P<phone>"
    rf"(?:\+|00)?{_GAP}254{_GAP}(?:0{_GAP})?[0-9](?:{_GAP}[0-9]){{8}}"
    rf"|0[ ()/-]{{0,2}}[17](?:{_GAP}[0-9]){{8}}"
    r"|[17][0-9]{8}"
    r")(?![0-9]|[A-Za-z]+[0-9])"
)
_CHECKOUT_REQUEST_ID = re.compile(r"ws_CO_[A-Za-z0-9_]+", re.IGNORECASE)
_ID_WITH_PHONE = re.compile(r"(ws_CO_[0-9]{6,14})[0-9]+", re.IGNORECASE)
_TOKEN_IN_PATH = re.compile(r"(/callback/)(?!\{token\})[^\s\"'?#]+")
_LONG_HEX = re.compile(r"(?:(?<![0-9A-Fa-f])|(?<=%[0-9A-Fa-f]{2}))[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
# Postgres shows a row that breaks a constraint, its body as bytea in hexadecimal.
_FAILING_ROW = re.compile(r"(Failing row contains \().*\)", re.DOTALL)
_BYTEA = re.compile(r"(\\x)[0-9a-f]{12,}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<![A-Za-z0-9])([a-z][a-z0-9+.-]{1,20}://[^\s:/@]{0,100}):[^\s/]+@")
_CREDENTIAL = re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=._~-]+", re.IGNORECASE)
_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")

_IS_UUID = re.compile(_UUID)

_hidden: tuple[str, ...] = ()
# Never a text that had to be masked, so no secret stays here.
_clean: set[str] = set()


def hide(*secrets: str | None) -> None:
    """Let these values appear nowhere in this process's logs and traces, whatever is around them.

    For the few secrets that the environment gives; a short value would tear other words apart.
    """
    global _hidden  # noqa: PLW0603 - one per process, as its log
    known = {*_hidden, *(it for it in secrets if it and len(it) >= SHORTEST_HIDDEN)}
    # The longest first: one may begin with another.
    _hidden = tuple(sorted(known, key=len, reverse=True)[:MAX_HIDDEN])
    _clean.clear()


def shows_hidden(text: str) -> bool:
    """Whether a value that `hide` was told is in the text."""
    for secret in _hidden:  # noqa: SIM110 - any() of a generator costs more than the search
        if secret in text:
            return True
    return False


def mask(text: str) -> str:
    """The text without whole phone numbers, CheckoutRequestIDs, callback tokens or credentials."""
    if text in _clean:
        return text
    is_uuid = len(text) == 36 and _IS_UUID.fullmatch(text) is not None
    if is_uuid and not shows_hidden(text):
        return text
    masked = _mask(text)
    if len(text) <= LONGEST_CLEAN and masked == text and not is_uuid:
        if len(_clean) >= MAX_CLEAN:
            _clean.clear()
        _clean.add(text)
    return masked


def _mask(text: str) -> str:
    if len(text) > MAX_TEXT_LENGTH:
        text = text[:MAX_TEXT_LENGTH]
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, "***")
    if len(text) == 36 and _IS_UUID.fullmatch(text):
        return text
    text = _CHECKOUT_REQUEST_ID.sub("ws_CO_***", text)
    text = _TOKEN_IN_PATH.sub(r"\1***", text)
    text = _FAILING_ROW.sub(r"\1***)", text)
    text = _BYTEA.sub(r"\1***", text)
    text = _LONG_HEX.sub("***", text)
    text = _URL_PASSWORD.sub(r"\1:***@", text)
    text = _CREDENTIAL.sub(r"\1 ***", text)
    text = _WEBHOOK_SECRET.sub("whsec_***", text)
    text = _LABELLED.sub(r"\1***", text)
    return _PHONE.sub(_without_phone, text)


def mask_phones(text: str) -> str:
    """The text without whole phone numbers; everything else stays readable.

    The end of a CheckoutRequestID is the payer's number of nine digits.
    """
    return _PHONE.sub(_keeping_the_blank, _ID_WITH_PHONE.sub(r"\1***", text))


def _keeping_the_blank(match: re.Match[str]) -> str:
    blank = "" if match["phone"] is None or not match["phone"].startswith(" ") else " "
    return blank + _without_phone(match)


def _without_phone(match: re.Match[str]) -> str:
    if match["id"] is not None:
        return match[0]
    digits = re.sub("[^0-9]", "", match["phone"])
    return match["before"] + mask_phone(digits)


def mask_value(value: Any, depth: int = 0) -> Any:
    """The same for any value: nested ones to a depth, all of them to a length."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict) and depth < MAX_DEPTH:
        items = list(value.items())[:MAX_ITEMS]
        return {
            mask(str(name))[:MAX_NAME_LENGTH]: "***"
            if _SECRET_NAME.search(str(name))
            else mask_value(item, depth + 1)
            for name, item in items
        }
    if isinstance(value, list | tuple | set | frozenset) and depth < MAX_DEPTH:
        return [mask_value(item, depth + 1) for item in list(value)[:MAX_ITEMS]]
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode("utf-8", "replace")
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < SMALLEST_PHONE):
        return value
    text = mask(value if isinstance(value, str) else str(value))
    if isinstance(value, int) and text == str(value):
        return value
    return shortened(text, MAX_VALUE_LENGTH)


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and its end: a traceback says most at its end."""
    if len(text) <= length:
        return text
    head = length // 4
    return f"{text[:head]} … {text[head - length :]}"

"""What a tester set for the next push or the next query only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from daraja_simulator.outcomes import BY_NAME, Outcome
from daraja_simulator.replies import JSON, Reply

MAX_ID_CHARACTERS = 128

_ID = re.compile(r"[!-~]+\Z", re.ASCII)
_CONTENT_TYPE = re.compile(r"[ -~]{1,200}\Z", re.ASCII)
_REPLY_FIELDS = frozenset({"status", "body", "content_type"})


class OverrideError(ValueError):
    """The override is wrong; the message names the field."""


@dataclass(frozen=True)
class NextPush:
    """Departures of the next push; None leaves what the phone's digits say.

    With an `answer`, nothing but that answer happens, unless `accepted` says that the payment
    goes on behind it.
    """

    merchant_request_id: str | None = None
    checkout_request_id: str | None = None
    outcome: Outcome | None = None
    answer: Reply | None = None
    accepted: bool = True


def parse_next_push(body: object) -> NextPush:
    """The body of PUT /next. Raises OverrideError."""
    fields = _object("body", body)
    _refuse_others(fields, {"MerchantRequestID", "CheckoutRequestID", "outcome", "answer"})
    answer = _optional(fields, "answer", _object)
    return NextPush(
        merchant_request_id=_optional(fields, "MerchantRequestID", _id),
        checkout_request_id=_optional(fields, "CheckoutRequestID", _id),
        outcome=_optional(fields, "outcome", _outcome),
        answer=None if answer is None else _reply(answer, _REPLY_FIELDS | {"accepted"}),
        accepted=True if answer is None else _switch("accepted", answer.get("accepted", False)),
    )


def parse_next_query(body: object) -> Reply:
    """The body of PUT /next-query. Raises OverrideError."""
    return _reply(_object("body", body), _REPLY_FIELDS)


def _optional(fields: Mapping[str, Any], name: str, parse: Callable[[str, object], Any]) -> Any:
    return parse(name, fields[name]) if fields.get(name) is not None else None


def _refuse_others(fields: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    others = sorted(set(fields) - known)
    if others:
        raise OverrideError(f"{others[0]} is not a field; there are {', '.join(sorted(known))}")


def _object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise OverrideError(f"{name} must be an object")
    return value


def _id(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_ID_CHARACTERS or not _ID.match(value):
        raise OverrideError(f"{name} must be a text without spaces, at most {MAX_ID_CHARACTERS}")
    return value


def _outcome(name: str, value: object) -> Outcome:
    if not isinstance(value, str) or value not in BY_NAME:
        raise OverrideError(f"{name} must be one of {', '.join(BY_NAME)}")
    return BY_NAME[value]


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise OverrideError(f"{name} must be true or false")
    return value


def _reply(fields: Mapping[str, Any], known: frozenset[str]) -> Reply:
    _refuse_others(fields, known)
    status = fields.get("status", 200)
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise OverrideError("status must be an HTTP status from 200 to 599")
    content_type = fields.get("content_type", JSON)
    if not isinstance(content_type, str) or not _CONTENT_TYPE.match(content_type):
        raise OverrideError("content_type must be a text of at most 200 characters")
    return Reply(status, _answer_body(fields.get("body", "")), content_type)


def _answer_body(body: object) -> str:
    """Text as it is, else JSON. Surrogates as of `surrogateescape` are sent as their bytes."""
    text = body if isinstance(body, str) else json.dumps(body)
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise OverrideError("body has characters that no bytes stand for") from error
    return text

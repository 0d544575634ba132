"""Every setting of the simulator, with its default, its form and whether it changes at run time."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")

MAX_DURATION_S = 86_400.0
MAX_COUNT = 10_000_000
MAX_TEXT_CHARACTERS = 1_024
MAX_MAPPING_ENTRIES = 1_000

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "": 1.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|)\Z", re.ASCII)


class Kind(StrEnum):
    """What form a setting has."""

    DURATION = "duration"
    RATE = "rate"
    COUNT = "count"
    SWITCH = "switch"
    TEXT = "text"
    MAPPING = "mapping"
    OPEN_PROMPT = "answer"


class OpenPromptAnswer(StrEnum):
    """What a query says while the prompt is open: Safaricom has all of these (measured) [M][I]."""

    STILL_PROCESSING = "4999"
    BEING_PROCESSED = "being_processed"
    EMPTY_500 = "empty_500"
    EMPTY_200 = "empty_200"
    DOES_NOT_EXIST = "does_not_exist"
    INVALID_ID = "invalid_id"


class SettingsError(ValueError):
    """One or more settings are wrong; `problems` has a sentence for each setting's name."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name} {problem}" for name, problem in problems.items()))
        self.problems = dict(problems)


def parse_duration(value: object) -> float:
    """Seconds, from a number of seconds or from `500ms`, `5s`, `1m`, `1h`. Raises ValueError."""
    seconds = _parse_duration_text(value) if isinstance(value, str) else _parse_number(value)
    if seconds is None or not 0 <= seconds <= MAX_DURATION_S:
        raise ValueError("must be seconds or a text such as 500ms, 5s, 1m or 1h, at most 24h")
    return seconds


def _parse_duration_text(text: str) -> float | None:
    match = _DURATION.match(text.strip())
    return float(match[1]) * _UNITS_S[match[2]] if match else None


def _parse_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _parse_rate(value: object) -> float:
    try:
        rate = float(value) if isinstance(value, str) else _parse_number(value)
    except ValueError:
        rate = None
    if rate is None or not 0 <= rate <= 1:
        raise ValueError("must be a number from 0 to 1")
    return rate


def _parse_count(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,8}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"must be a whole number from 0 to {MAX_COUNT}")
    return value


def _parse_switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004  bad input is a ValueError here
    return value


def _parse_text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARACTERS:
        raise ValueError(f"must be a text of 1 to {MAX_TEXT_CHARACTERS} characters")
    return value


def _parse_mapping(value: object) -> dict[str, str]:
    entries = value.items() if isinstance(value, Mapping) else ()
    texts = {k: v for k, v in entries if isinstance(k, str) and isinstance(v, str) and k and v}
    if not 0 < len(entries) <= MAX_MAPPING_ENTRIES or len(texts) != len(entries):
        raise ValueError("must be an object of texts, with at least one entry")
    return texts


def _parse_open_prompt_answer(value: object) -> OpenPromptAnswer:
    try:
        return OpenPromptAnswer(str(value))
    except ValueError as error:
        raise ValueError(f"must be one of {', '.join(OpenPromptAnswer)}") from error


_PARSERS: dict[Kind, Callable[[object], Any]] = {
    Kind.DURATION: parse_duration,
    Kind.RATE: _parse_rate,
    Kind.COUNT: _parse_count,
    Kind.SWITCH: _parse_switch,
    Kind.TEXT: _parse_text,
    Kind.MAPPING: _parse_mapping,
    Kind.OPEN_PROMPT: _parse_open_prompt_answer,
}


def _setting(default: T, kind: Kind, help_text: str, *, fixed: bool = False) -> T:
    """A field of Settings. `fixed`: known at start only, PATCH /settings refuses it."""
    metadata = {"kind": kind, "help": help_text, "fixed": fixed}
    return field(default=default, metadata=metadata, repr=kind is not Kind.MAPPING)


@dataclass(frozen=True)
class Settings:
    """What the simulator does; durations are seconds (texts such as `500ms` are read too).

    Raises SettingsError when a value is wrong. `dataclasses.fields` gives each setting's `kind`
    and `help`, from which a command line can be made.
    """

    host: str = _setting("127.0.0.1", Kind.TEXT, "address to listen on", fixed=True)
    port: int = _setting(8090, Kind.COUNT, "port to listen on, 0 takes a free one", fixed=True)
    credentials: Mapping[str, str] | None = _setting(
        None, Kind.MAPPING, "consumer key and secret of each app; none accepts any"
    )
    passkeys: Mapping[str, str] | None = _setting(
        None, Kind.MAPPING, "short code and passkey of each merchant; none accepts any"
    )
    token_lifetime: float = _setting(3599.0, Kind.DURATION, "how long an OAuth token lives")
    token_invalidation: bool = _setting(
        True, Kind.SWITCH, "a new token kills the previous one of the same consumer key"
    )
    expires_in_number: bool = _setting(
        False, Kind.SWITCH, "expires_in is a JSON number instead of a text"
    )
    push_delay: float = _setting(0.0, Kind.DURATION, "time until a push is answered")
    hang_delay: float = _setting(60.0, Kind.DURATION, "further time until a hanging push answers")
    callback_delay: float = _setting(
        1.0, Kind.DURATION, "how long the prompt is open before the customer answers it"
    )
    late_delay: float = _setting(
        30.0, Kind.DURATION, "further time until a late callback is posted"
    )
    callback_timeout: float = _setting(5.0, Kind.DURATION, "how long a callback may take")
    verify_tls: bool = _setting(True, Kind.SWITCH, "check the certificates of callback URLs")
    subscriber_lock: bool = _setting(
        True, Kind.SWITCH, "refuse a push to a phone whose prompt is open"
    )
    queries_per_minute: int = _setting(
        0, Kind.COUNT, "STK queries per minute and app, burst 1; 0 sets no limit, 5 is the sandbox"
    )
    query_while_open: OpenPromptAnswer = _setting(  # noqa: RUF009  an enum member is immutable
        OpenPromptAnswer.STILL_PROCESSING,
        Kind.OPEN_PROMPT,
        f"what a query says while the prompt is open: {', '.join(OpenPromptAnswer)}",
    )
    push_failure_rate: float = _setting(0.0, Kind.RATE, "share of pushes answered busy")
    query_failure_rate: float = _setting(0.0, Kind.RATE, "share of queries without information")
    callback_drop_rate: float = _setting(0.0, Kind.RATE, "share of callbacks that never come")
    callback_duplicate_rate: float = _setting(0.0, Kind.RATE, "share of callbacks that come twice")
    seed: int | None = _setting(None, Kind.COUNT, "makes the random failures the same every run")
    max_records: int = _setting(
        200_000, Kind.COUNT, "how many records of each kind stay in memory", fixed=True
    )
    ledger_file: str | None = _setting(
        None, Kind.TEXT, "file to append every record to, as JSON lines", fixed=True
    )

    def __post_init__(self) -> None:
        problems = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None and each.default is None:
                continue
            try:
                object.__setattr__(self, each.name, _PARSERS[each.metadata["kind"]](value))
            except ValueError as error:
                problems[each.name] = str(error)
        if not problems:
            problems = self._find_problems()
        if problems:
            raise SettingsError(problems)

    def _find_problems(self) -> dict[str, str]:
        """What is wrong although each value has the right form."""
        problems = {}
        if self.port > 65_535:
            problems["port"] = "must be at most 65535"
        if self.max_records == 0:
            problems["max_records"] = "must be at least 1"
        if self.callback_timeout <= 0:
            problems["callback_timeout"] = "must be longer than zero"
        return problems

    def changed(self, changes: Mapping[str, object]) -> Settings:
        """The settings with some of them changed at run time. Raises SettingsError."""
        changeable = {each.name for each in fields(self) if not each.metadata["fixed"]}
        unknown = {
            name: "is fixed at start" if hasattr(self, name) else "is not a setting"
            for name in changes
            if name not in changeable
        }
        known: dict[str, Any] = {k: v for k, v in changes.items() if k in changeable}
        try:
            changed = dataclasses.replace(self, **known)
        except SettingsError as error:
            raise SettingsError(unknown | error.problems) from error
        if unknown:
            raise SettingsError(unknown)
        return changed

    def public(self) -> dict[str, object]:
        """All settings as JSON values; of secrets only whose they are."""
        return {each.name: _public(getattr(self, each.name)) for each in fields(self)}


def _public(value: object) -> object:
    return sorted(value) if isinstance(value, Mapping) else value

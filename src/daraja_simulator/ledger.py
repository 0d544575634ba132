"""The append-only witness: what arrived, what was charged, what was called back.

A caller that awaits `record` goes on only when the line is on disk, if a file is kept.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import Any, ClassVar

from daraja_simulator.ids import now
from daraja_simulator.ledger_file import LedgerFile


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An OAuth token was given."""

    plural: ClassVar[str] = "tokens"
    consumer_key: str


@dataclass(frozen=True, slots=True)
class PushRecord:
    """A push arrived. Fields are None where the body did not say them.

    `accepted` says whether a prompt appeared, whatever was answered; `answer_status` is None when
    the connection was cut. `callback_copies` counts the callbacks to expect.
    """

    plural: ClassVar[str] = "pushes"
    app_key: str | None
    short_code: str | None
    phone: str | None
    amount: int | None
    account_reference: str | None
    callback_url: str | None
    accepted: bool
    outcome: str | None
    callback_copies: int
    merchant_request_id: str | None
    checkout_request_id: str | None
    answer_status: int | None
    answer_body: str | None


@dataclass(frozen=True, slots=True)
class DebitRecord:
    """A customer paid; amount in shillings."""

    plural: ClassVar[str] = "debits"
    merchant_request_id: str
    checkout_request_id: str
    short_code: str
    phone: str
    amount: int
    account_reference: str
    receipt: str
    callback_url: str


@dataclass(frozen=True, slots=True)
class CallbackRecord:
    """One posting of a callback ended: with a status, or with an error.

    `copy` counts from 1 to `copies`; `body` is the text whose UTF-8 bytes were posted.
    """

    plural: ClassVar[str] = "callbacks"
    merchant_request_id: str
    checkout_request_id: str
    phone: str
    callback_url: str
    copy: int
    copies: int
    status: int | None
    error: str | None
    duration_ms: int
    body: str


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """A query arrived; phone and callback URL are those of the payment, if it is known."""

    plural: ClassVar[str] = "queries"
    app_key: str | None
    short_code: str | None
    checkout_request_id: str | None
    phone: str | None
    callback_url: str | None
    answer_status: int
    answer_body: str


Record = TokenRecord | PushRecord | DebitRecord | CallbackRecord | QueryRecord

_CLASSES: tuple[type[Record], ...] = (
    PushRecord,
    DebitRecord,
    CallbackRecord,
    TokenRecord,
    QueryRecord,
)
_FIELDS = {each: tuple(field.name for field in fields(each)) for each in _CLASSES}


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its place in the ledger: `sequence` counts all records from 1."""

    sequence: int
    at: str
    record: Record

    def as_json(self) -> dict[str, Any]:
        """The entry as one flat object."""
        record = self.record
        values = {name: getattr(record, name) for name in _FIELDS[type(record)]}
        return {"sequence": self.sequence, "at": self.at, **values}


@dataclass(frozen=True)
class Selection:
    """Which entries are wanted. A phone or URL leaves out records that belong to no payment."""

    phone: str | None = None
    callback_url_contains: str | None = None
    since: int = 0

    def has(self, entry: Entry) -> bool:
        """Whether the entry is wanted; `since` is left to the caller."""
        if self.phone is not None and getattr(entry.record, "phone", None) != self.phone:
            return False
        url = getattr(entry.record, "callback_url", None) or ""
        return self.callback_url_contains is None or self.callback_url_contains in url


class Ledger:
    """The last `max_records` entries of each kind in memory, and all of them in the file."""

    def __init__(self, max_records: int, file: LedgerFile | None) -> None:
        self._file = file
        self._entries: dict[str, deque[Entry]] = {
            each.plural: deque(maxlen=max_records) for each in _CLASSES
        }
        self._counts = dict.fromkeys(self._entries, 0)
        self.last_sequence = 0

    async def record(self, record: Record) -> None:
        """Append a record. It is in memory at once, and on disk when this returns."""
        self.last_sequence += 1
        at = now().isoformat(timespec="milliseconds")
        entry = Entry(self.last_sequence, at, record)
        self._entries[record.plural].append(entry)
        self._counts[record.plural] += 1
        if self._file is not None:
            line = json.dumps({"kind": record.plural, **entry.as_json()})
            await self._file.append(line)

    def clear(self) -> None:
        """Forget what is in memory; the file keeps all."""
        for entries in self._entries.values():
            entries.clear()

    def counts(self) -> dict[str, dict[str, int]]:
        """For each kind how many records there were, and how many are still in memory."""
        return {
            kind: {"recorded": self._counts[kind], "kept": len(entries)}
            for kind, entries in self._entries.items()
        }

    def select(self, selection: Selection) -> dict[str, Iterator[Entry]]:
        """The wanted entries of each kind, in order. Later records do not show up in it."""
        return {kind: self._select(entries, selection) for kind, entries in self._entries.items()}

    def _select(self, entries: deque[Entry], selection: Selection) -> Iterator[Entry]:
        newest_first = takewhile(lambda each: each.sequence > selection.since, reversed(entries))
        candidates = list(newest_first)
        return (entry for entry in reversed(candidates) if selection.has(entry))

"""The recorded bodies of `tests/data`, with what must come of each."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent.parent / "data"
FOLDERS = ("oauth", "push", "query", "callbacks")
# Words that Python keeps for itself, or that say too little there.
_RENAMED = {"class": "expected", "type": "content_type"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer of Safaricom. `expected` names the class that it belongs to.

    `reason` and what follows is None where the class has none: pushes have reasons, waits and ids,
    OAuth has tokens.
    """

    file: str
    status: int
    content_type: str
    fact: str
    body: bytes
    expected: str
    code: str | None = None
    reason: str | None = None
    retry_after_s: int | None = None
    checkout_request_id: str | None = None
    token: str | None = None
    expires_in_s: int | None = None


@dataclass(frozen=True, kw_only=True)
class Callback:
    """A callback, and its effect on a fresh pending transaction (see the manifest).

    `effect` is completed, failed, held or quarantined; `outcome` is the word that the inbox keeps.
    """

    file: str
    content_type: str
    fact: str
    body: bytes
    effect: str
    outcome: str
    code: str | None = None


def load_oauth() -> list[Answer]:
    return [Answer(**row) for row in _rows("oauth")]


def load_push() -> list[Answer]:
    return [Answer(**row) for row in _rows("push")]


def load_query() -> list[Answer]:
    return [Answer(**row) for row in _rows("query")]


def load_callbacks() -> list[Callback]:
    return [Callback(**row) for row in _rows("callbacks")]


def _rows(folder: str) -> list[dict[str, Any]]:
    rows = [{_RENAMED.get(k, k): v for k, v in row.items()} for row in load_manifest()[folder]]
    return [{**row, "body": (DIRECTORY / folder / row["file"]).read_bytes()} for row in rows]


@cache
def load_manifest() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads((DIRECTORY / "manifest.toml").read_text("utf-8"))

"""Work that waits in Postgres, named by what a wake-up may carry: a kind and an id."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WorkKind(StrEnum):
    """What is to be done with a row."""

    CALLBACK = "callback"
    DELIVERY = "delivery"
    PUSH = "push"
    QUERY = "query"
    REDELIVERY = "redelivery"


@dataclass(frozen=True)
class Work:
    """One row to look at. Doing it twice does no harm."""

    kind: WorkKind
    id: int

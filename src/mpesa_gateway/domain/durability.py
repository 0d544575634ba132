"""How durable a database is: what it says of itself, judged against what somebody decided."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Who can be told from PostgreSQL by the text of `version()`, and does not have what we rely on.
_REFUSED_ENGINES = {"CockroachDB": "CockroachDB", "-YB-": "YugabyteDB", "YugabyteDB": "YugabyteDB"}


_NOT_AS_DECIDED = (
    "MPESA_DATABASE_DURABILITY is synchronous, and synchronous_standby_names is empty:"
    " a fail-over loses the last payments and callbacks"
)
_ASYNCHRONOUS = (
    "its replicas are asynchronous: a fail-over loses the last payments and callbacks;"
    " set synchronous_standby_names"
)
_UNDECIDED = (
    "it has no replica that Postgres knows of: say what protects it by"
    " MPESA_DATABASE_DURABILITY=storage, synchronous or single (docs/recovery.md)"
)


class Level(StrEnum):
    """From the weakest to the strongest."""

    # A crash of this server may lose or damage committed data.
    UNSAFE = "unsafe"
    # A fail-over may lose what was committed just before it.
    ASYNCHRONOUS = "asynchronous"
    # Nobody holds a second copy, as far as Postgres knows.
    SINGLE = "single"
    # A commit waits for a standby.
    SYNCHRONOUS = "synchronous"


class Expected(StrEnum):
    """What `MPESA_DATABASE_DURABILITY` says that somebody decided."""

    # The storage below Postgres is replicated: RDS Multi-AZ, Aurora, AlloyDB, Cloud SQL.
    STORAGE = "storage"
    SYNCHRONOUS = "synchronous"
    SINGLE = "single"


@dataclass(frozen=True)
class Durability:
    """What the server says, in a session of ours. `replicas` are connected at this moment."""

    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    synchronous_standby_names: str
    replicas: int
    read_only: bool

    @property
    def level(self) -> Level:
        """The level of the whole."""
        if not self.fsync or not self.full_page_writes or self.synchronous_commit == "off":
            return Level.UNSAFE
        if self.synchronous_standby_names.strip() and self.synchronous_commit != "local":
            return Level.SYNCHRONOUS
        return Level.ASYNCHRONOUS if self.replicas else Level.SINGLE


def refused_engine(version: str) -> str | None:
    """Return the name of an engine that is refused; None for PostgreSQL. Takes `version()`."""
    names = (name for mark, name in _REFUSED_ENGINES.items() if mark in version)
    return next(names, None)


def refusal_of(engine: str) -> str:
    """Return what `check`, a start and `migrate` say of a refused engine."""
    return (
        f"this is {engine}, which is not supported: the gateway relies on PostgreSQL's advisory"
        " locks and system columns. Use PostgreSQL 14 or later"
    )


def concerns(durability: Durability, expected: Expected | None, *, production: bool) -> list[str]:
    """Return a sentence for each way in which the database may lose what it acknowledged."""
    found = []
    if not durability.fsync:
        found.append("fsync is off: a crash of its machine may damage the whole database")
    if not durability.full_page_writes:
        found.append("full_page_writes is off: a crash may damage pages beyond repair")
    if durability.synchronous_commit == "off":
        found.append("synchronous_commit is off: a crash loses the last commits")
    if not found:
        found += _about_copies(durability.level, expected, production=production)
    return found


def _about_copies(level: Level, expected: Expected | None, *, production: bool) -> list[str]:
    if level is Level.SYNCHRONOUS or expected is Expected.STORAGE:
        return []
    if expected is Expected.SYNCHRONOUS:
        return [_NOT_AS_DECIDED]
    if level is Level.ASYNCHRONOUS:
        return [_ASYNCHRONOUS]
    return [_UNDECIDED] if production and expected is None else []

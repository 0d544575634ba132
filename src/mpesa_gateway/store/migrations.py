"""Schema migrations: numbered SQL files, applied once, in order, under one advisory lock.

They run while the release before serves. So nothing waits for a lock for long: whoever waits for
a table keeps everybody behind it waiting, too. `docs/decisions/0003` says why this is our own.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import errors

from mpesa_gateway.errors import SchemaError, UnavailableError
from mpesa_gateway.store.pool import CONNECT_TIMEOUT_S, Connection
from mpesa_gateway.store.reach import in_words

_FILE = re.compile(r"([0-9]{3})_([a-z0-9_]+)\.sql\Z")
# Any number, the same in every release.
_LOCK = 7_331_254
WAIT_STEP_S = 0.5
# How long another process may be at it before we give up; an index of a big table takes its time.
TURN_PATIENCE_S = 3600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0

_COMMENT = re.compile(r"^--.*$", re.MULTILINE)
_CONCURRENT = re.compile(r"\s*CREATE (?:UNIQUE )?INDEX CONCURRENTLY ([a-z_]+) ON [^;]+;\s*")


@dataclass(frozen=True)
class Patience:
    """How long one try waits for a table's lock, and for how long it is tried again.

    A callback must be answered within 2 s, so that one try may take a fraction of it.
    """

    lock_ms: int = 500
    total_s: float = 300.0


PATIENCE = Patience()


@dataclass(frozen=True)
class Migration:
    """One file: its number, its name and what it does."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Shows whether an applied file was changed afterwards."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def index(self) -> str | None:
        """The index that it builds while others write, outside of a transaction; else None.

        Raises SchemaError when it does something else beside: half of it could not be undone.
        """
        statements = _COMMENT.sub("", self.sql)
        if "CONCURRENTLY" not in statements:
            return None
        match = _CONCURRENT.fullmatch(statements)
        if match is None:
            raise SchemaError(
                f"migration {self.version:03d}: CREATE INDEX CONCURRENTLY stands alone in its file"
            )
        return match[1]


def migrations_directory() -> Path:
    """Inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1] / "migrations"
    return package if package.is_dir() else package.parents[2] / "migrations"


def load_migrations(directory: Path) -> list[Migration]:
    """Every migration, in order. Raises SchemaError on a gap or a stray file."""
    migrations = []
    for path in sorted(directory.glob("*.sql")):
        match = _FILE.match(path.name)
        if match is None:
            raise SchemaError(f"{path.name} is not named like 001_initial_schema.sql")
        migrations.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    versions = [migration.version for migration in migrations]
    if not versions or versions != list(range(1, len(versions) + 1)):
        raise SchemaError(f"migrations in {directory.name}/ do not count 001, 002, …: {versions}")
    return migrations


def applied_version(conn: Connection) -> int:
    """The schema's version, 0 for an empty database."""
    row = conn.execute("SELECT to_regclass('schema_migrations')").fetchone()
    if row is None or row[0] is None:
        return 0
    row = conn.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    assert row is not None
    version: int = row[0]
    return version


def apply_migrations(
    url: str,
    migrations: list[Migration],
    report: Callable[[str], None],
    *,
    deadline_s: float = 0,
    patience: Patience = PATIENCE,
) -> list[Migration]:
    """Apply what is missing and return it. Safe to run twice and at once.

    Raises SchemaError when an applied file was changed or a lock cannot be had, UnavailableError
    when Postgres has not answered by the deadline: at an installation it starts when we do.
    """
    with _connect_in_time(url, report, deadline_s) as conn:
        _take_turn(conn, report)
        with conn.transaction():
            conn.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY,"
                " name TEXT NOT NULL, checksum TEXT NOT NULL,"
                " applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())"
            )
        _check_history(conn, migrations)
        done = applied_version(conn)
        missing = [migration for migration in migrations if migration.version > done]
        for migration in missing:
            report(f"applying {migration.version:03d} {migration.name}")
            _apply(conn, migration, report, patience)
        return missing


def _take_turn(conn: Connection, report: Callable[[str], None]) -> None:
    """Be the only one. Asked again and again: a statement that waited would hold a snapshot, for
    whose end a concurrent index build of the other process would wait in turn.
    """
    give_up = time.monotonic() + TURN_PATIENCE_S
    told = False
    while conn.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() != (True,):
        if time.monotonic() >= give_up:
            raise SchemaError("another process has been migrating for an hour; is it stuck?")
        if not told:
            report("another process migrates; waiting for it")
            told = True
        time.sleep(WAIT_STEP_S)


def _apply(
    conn: Connection, migration: Migration, report: Callable[[str], None], patience: Patience
) -> None:
    """Try until it has its locks. Between two tries everybody who waited behind us goes on."""
    give_up = time.monotonic() + patience.total_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            if migration.index is None:
                _run(conn, migration, patience)
            else:
                _build_index(conn, migration, migration.index, patience)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            why = f"{migration.version:03d} got no lock: {_in_the_way(conn)}"
            if time.monotonic() >= give_up:
                raise SchemaError(f"{why}. Nothing of it was applied; run it again") from error
            report(f"{why}; trying again")
        else:
            return
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _run(conn: Connection, migration: Migration, patience: Patience) -> None:
    with conn.transaction():
        _wait_for_locks(conn, patience.lock_ms)
        # The file is ours, not a caller's text. As bytes, it may hold several statements.
        conn.execute(migration.sql.encode())
        _record(conn, migration)


def _build_index(conn: Connection, migration: Migration, index: str, patience: Patience) -> None:
    """Build it while others write, unless it was built and only the record is missing.

    A build that failed leaves an index that is kept up to date and never used: it goes first.
    Neither keeps a writer waiting, so both may wait for long transactions to end.
    """
    _wait_for_locks(conn, int(patience.total_s * 1000))
    valid = conn.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", [index]
    ).fetchone()
    if valid == (False,):
        conn.execute(f"DROP INDEX CONCURRENTLY {index}".encode())
    if valid != (True,):
        conn.execute(migration.sql.encode())
    _record(conn, migration)


def _wait_for_locks(conn: Connection, lock_ms: int) -> None:
    """For so long; and statements themselves take as long as they take, whatever the role says."""
    conn.execute(
        "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', '0', false)",
        [str(lock_ms)],
    )


def _record(conn: Connection, migration: Migration) -> None:
    conn.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
        [migration.version, migration.name, migration.checksum],
    )


def _in_the_way(conn: Connection) -> str:
    """Who most likely holds it, in words."""
    row = conn.execute(
        "SELECT pid, application_name, round(extract(epoch FROM clock_timestamp() - xact_start))"
        " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 1"
    ).fetchone()
    if row is None:
        return "a transaction that has ended by now"
    pid, program, age_s = row
    return f"the oldest transaction is of pid {pid} ({program or 'unnamed'}), {age_s} s old"


def _check_history(conn: Connection, migrations: list[Migration]) -> None:
    known = {migration.version: migration for migration in migrations}
    for version, checksum in conn.execute("SELECT version, checksum FROM schema_migrations"):
        migration = known.get(version)
        if migration is not None and migration.checksum != checksum:
            raise SchemaError(
                f"migration {version:03d} was changed after it had been applied: restore the file"
                " and write a new migration instead"
            )


def wait_for_schema(url: str, version: int, *, deadline_s: float) -> None:
    """Return once the schema is at least that version. Raises SchemaError at the deadline."""
    give_up = time.monotonic() + deadline_s
    found = "no answer from Postgres"
    while True:
        try:
            with _connect(url) as conn:
                current = applied_version(conn)
                found = f"schema version {current}"
                if current >= version:
                    return
        except UnavailableError as error:
            found = str(error)
        if time.monotonic() >= give_up:
            raise SchemaError(f"schema version {version} is needed; last seen: {found}")
        time.sleep(WAIT_STEP_S)


def _connect_in_time(url: str, report: Callable[[str], None], deadline_s: float) -> Connection:
    give_up = time.monotonic() + deadline_s
    told = False
    while True:
        try:
            return _connect(url)
        except UnavailableError:
            if time.monotonic() >= give_up:
                raise
        if not told:
            report(f"Postgres does not answer yet; trying for {deadline_s:.0f} s")
            told = True
        time.sleep(WAIT_STEP_S)


def _connect(url: str) -> Connection:
    try:
        return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
    except psycopg.OperationalError as error:
        raise UnavailableError(f"Postgres does not answer ({in_words(url, error)})") from error

"""Schema migrations: numbered SQL files, applied once, in order, under one advisory lock.

`docs/decisions/0003` says why this is our own and not a library.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from mpesa_gateway.errors import SchemaError, UnavailableError
from mpesa_gateway.store.pool import CONNECT_TIMEOUT_S, Connection

_FILE = re.compile(r"([0-9]{3})_([a-z0-9_]+)\.sql\Z")
# Any number, the same in every release.
_LOCK = 7_331_254
WAIT_STEP_S = 0.5


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
) -> list[Migration]:
    """Apply what is missing and return it. Safe to run twice and at once.

    Raises SchemaError when an applied file was changed, UnavailableError when Postgres has not
    answered by the deadline: at an installation it starts at the same time as we do.
    """
    with _connect_in_time(url, report, deadline_s) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
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
            _apply(conn, migration)
        return missing


def _apply(conn: Connection, migration: Migration) -> None:
    with conn.transaction():
        # The file is ours, not a caller's text. As bytes, it may hold several statements.
        conn.execute(migration.sql.encode())
        conn.execute(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.checksum],
        )


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
        raise UnavailableError("Postgres does not answer") from error

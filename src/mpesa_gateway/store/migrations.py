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
from mpesa_gateway.store.applied import applied_version
from mpesa_gateway.store.connection_errors import in_words
from mpesa_gateway.store.deadline import BoundedConnection
from mpesa_gateway.store.engine import find_unsupported
from mpesa_gateway.store.long_statements import watched
from mpesa_gateway.store.pool import CONNECT_TIMEOUT_S, KEEPALIVE, Connection
from mpesa_gateway.store.session import is_through_pooler
from mpesa_gateway.store.turns import WAIT_STEP_S, Turn, take_turn

_FILE = re.compile(r"([0-9]{3})_([a-z0-9_]+)\.sql\Z")
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
    try:
        with _connect_in_time(url, report, deadline_s) as conn:
            if (reason := find_unsupported(conn)) is not None:
                raise SchemaError(reason)
            is_pooled = is_through_pooler(conn)
            with take_turn(lambda: _connect(url), report) as turn:
                missing = _find_missing(conn, migrations)
                run = _Run(conn, turn, report, patience, is_pooled=is_pooled)
                for migration in missing:
                    report(f"applying {migration.version:03d} {migration.name}")
                    run.apply(migration)
                return missing
    except psycopg.OperationalError as error:
        raise UnavailableError(
            f"Postgres went away in the middle ({in_words(url, error)}); run it again"
        ) from error


def migrate(
    url: str, migrations: list[Migration], report: Callable[[str], None], *, deadline_s: float
) -> list[Migration]:
    """Apply what is missing, for a person: whatever goes wrong is an error of ours with a sentence.

    Raises SchemaError and UnavailableError.
    """
    try:
        return apply_migrations(url, migrations, report, deadline_s=deadline_s)
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise UnavailableError(
            f"Postgres went away during a migration ({in_words(url, error)}); run it again"
        ) from error
    except psycopg.Error as error:
        raise SchemaError(
            f"a migration failed: {type(error).__name__}: {str(error).partition(chr(10))[0]};"
            " nothing of its file was applied"
        ) from error


def _find_missing(conn: Connection, migrations: list[Migration]) -> list[Migration]:
    with conn.transaction():
        conn.execute(
            """
            CREATE TABLE IF NOT EXISTS schema_migrations (
                version INTEGER PRIMARY KEY,
                name TEXT NOT NULL,
                checksum TEXT NOT NULL,
                applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
            )
            """
        )
    _check_history(conn, migrations)
    done = applied_version(conn)
    return [migration for migration in migrations if migration.version > done]


@dataclass(frozen=True)
class _Run:
    """Applies migrations, while the turn is ours."""

    conn: BoundedConnection
    turn: Turn
    report: Callable[[str], None]
    patience: Patience
    is_pooled: bool

    def apply(self, migration: Migration) -> None:
        """Try until it has its locks. Between two tries everybody who waited behind us goes on."""
        give_up = time.monotonic() + self.patience.total_s
        pause_s = FIRST_PAUSE_S
        while True:
            self.turn.check()
            try:
                with watched(self.conn, self.turn.check, self._say_of(migration)):
                    self._run(migration)
            except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                why = f"{migration.version:03d} got no lock: {self._in_the_way()}"
                if time.monotonic() >= give_up:
                    raise SchemaError(f"{why}. Nothing of it was applied; run it again") from error
                self.report(f"{why}; trying again")
            else:
                return
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _say_of(self, migration: Migration) -> Callable[[str], None]:
        return lambda what: self.report(f"{migration.version:03d} {migration.name}: {what}")

    def _run(self, migration: Migration) -> None:
        if migration.index is None:
            self._execute(migration)
        else:
            self._build_index(migration, migration.index)

    def _execute(self, migration: Migration) -> None:
        with self.conn.transaction():
            _wait_for_locks(self.conn, self.patience.lock_ms, local=True)
            # The file is ours, not a caller's text. As bytes, it may hold several statements.
            self.conn.execute(migration.sql.encode())
            _record(self.conn, migration)

    def _build_index(self, migration: Migration, index: str) -> None:
        """Build it while others write, unless it was built and only the record is missing.

        A build that failed leaves an index that is kept up to date and never used: it goes first.
        Neither keeps a writer waiting, so both may wait for long transactions to end.
        """
        if not self.is_pooled:
            _wait_for_locks(self.conn, int(self.patience.total_s * 1000), local=False)
        try:
            self._build_concurrently(migration, index)
        except errors.QueryCanceled as error:
            raise SchemaError(
                f"{migration.version:03d} was cancelled: statement_timeout of the role is too short"
                " for it, and a pooler lets no session lift it; give `migrate` a direct connection"
            ) from error
        _record(self.conn, migration)

    def _build_concurrently(self, migration: Migration, index: str) -> None:
        valid = self.conn.execute(
            """
            SELECT indisvalid
              FROM pg_index
             WHERE indexrelid = to_regclass(%(index)s)
            """,
            {"index": index},
        ).fetchone()
        if valid == (False,):
            self.conn.execute(f"DROP INDEX CONCURRENTLY {index}".encode())
        if valid != (True,):
            self.conn.execute(migration.sql.encode())

    def _in_the_way(self) -> str:
        """Who most likely holds it, in words. Our own lock's transaction does not."""
        row = self.conn.execute(
            """
            SELECT pid, application_name, round(extract(epoch FROM clock_timestamp() - xact_start))
              FROM pg_stat_activity
             WHERE datname = current_database()
               AND pid NOT IN (pg_backend_pid(), %(ours)s)
               AND xact_start IS NOT NULL
             ORDER BY xact_start
             LIMIT 1
            """,
            {"ours": self.turn.pid},
        ).fetchone()
        if row is None:
            return "a transaction that has ended by now"
        pid, program, age_s = row
        return f"the oldest transaction is of pid {pid} ({program or 'unnamed'}), {age_s} s old"


def _wait_for_locks(conn: Connection, lock_ms: int, *, local: bool) -> None:
    """For so long; and statements themselves take as long as they take, whatever the role says."""
    conn.execute(
        """
        SELECT set_config('lock_timeout', %(lock_ms)s, %(local)s),
               set_config('statement_timeout', '0', %(local)s)
        """,
        {"lock_ms": str(lock_ms), "local": local},
    )


def _record(conn: Connection, migration: Migration) -> None:
    conn.execute(
        """
        INSERT INTO schema_migrations (version, name, checksum)
        VALUES (%(version)s, %(name)s, %(checksum)s)
        """,
        {"version": migration.version, "name": migration.name, "checksum": migration.checksum},
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
        except psycopg.OperationalError as error:
            found = in_words(url, error)
        if time.monotonic() >= give_up:
            raise SchemaError(f"schema version {version} is needed; last seen: {found}")
        time.sleep(WAIT_STEP_S)


def _connect_in_time(
    url: str, report: Callable[[str], None], deadline_s: float
) -> BoundedConnection:
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


def _connect(url: str) -> BoundedConnection:
    try:
        # Nothing is prepared: behind a pooler another client's statement may have the same name.
        return BoundedConnection.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            prepare_threshold=None,
            **KEEPALIVE,  # type: ignore[arg-type]
        )
    except psycopg.Error as error:
        raise UnavailableError(f"Postgres does not answer ({in_words(url, error)})") from error

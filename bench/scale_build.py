"""Ten million payments, made in the database, and beside them a database without a history.

Both databases of one Postgres have the last hour's payments and the same open work. The history is
written without indexes and without the log of changes; the newest three in a hundred are then lived
step by step, and autovacuum gets the time that it would have had: it comes for each hundredth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from bench.rig import Rig
from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)

HERE = Path(__file__).parent
TABLES = ("transactions", "transaction_events", "callbacks", "deliveries", "webhook_attempts")
FULL, FRESH = "full", "fresh"
# Of the last hour, in both databases.
RECENT = 5_000
OPEN = 3_000
# Of the history's end, lived step by step: three times what autovacuum waits for.
LIVED_SHARE = 0.03
CHUNK = 250_000
LIVED_CHUNK = 5_000
SPAN = timedelta(days=730)
# For writing the history only: it is checked and flushed at the end.
LOADING = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "1GB",
    "synchronous_commit": "off",
    "autovacuum": "off",
}

# By the settings of migrations 010 to 013; the statistics are what autovacuum itself goes by.
DUE_FOR_VACUUM = b"""
SELECT FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
WHERE s.relname = ANY(%s) AND c.reloptions IS NOT NULL
  AND (s.n_dead_tup > 50 + 0.01 * c.reltuples OR s.n_ins_since_vacuum > 1000 + 0.01 * c.reltuples)
"""
# It looks once a minute, and takes its time.
AUTOVACUUM_S = 900.0
LOOK_S = 5.0
# For a checkpoint of all that was written.
STOP_S = 300.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """What was built, and how long each step took."""

    rows: int
    # How many of them were lived step by step.
    lived: int
    built_at: str
    seconds: dict[str, float]


class ScaleRig(Rig):
    """A Postgres whose directory stays, and its two databases; `database` is the one in use."""

    def __init__(self, directory: Path, *, loading: bool = False) -> None:
        super().__init__(directory)
        settings = LOADING if loading else None
        self.postgres = EmbeddedPostgres(directory, settings=settings)
        self.redis = EmbeddedRedis(directory)
        self.database = FULL

    @property
    def database_url(self) -> str:
        """The gateway's database: the full one or the fresh one."""
        return self.postgres.url(self.database)

    def stop(self) -> None:
        """Everything. Postgres keeps its statistics: autovacuum would know of nothing to do."""
        for process in self._started:
            process.stop()
        self.redis.stop()
        self.postgres.stop_cleanly(STOP_S)

    def connect_to(self, database: str) -> psycopg.Connection:
        """A connection in autocommit mode to one of the two."""
        return psycopg.connect(self.postgres.url(database), autocommit=True)


@contextmanager
def scale_rig(directory: Path, *, loading: bool = False) -> Iterator[ScaleRig]:
    """Both stores, started on what the directory holds."""
    made = ScaleRig(directory, loading=loading)
    try:
        made.postgres.start()
        made.redis.start()
        yield made
    finally:
        made.stop()


def find_built(directory: Path) -> Built | None:
    """What was built there before, None when nothing was."""
    try:
        return Built(**json.loads((directory / "built.json").read_text(encoding="utf-8")))
    except OSError:
        return None


def build(directory: Path, rows: int, say: Say) -> Built:
    """Make both databases of so many payments."""
    directory.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}

    def timed(name: str, run: Callable[[], None]) -> None:
        started = time.monotonic()
        run()
        seconds[name] = round(time.monotonic() - started, 1)
        say(f"{name}: {seconds[name]:,.0f} s")

    end = datetime.now(UTC) - timedelta(hours=1)
    lived = int(rows * LIVED_SHARE)
    step = SPAN / rows
    with scale_rig(directory, loading=True) as rig:
        for name in (FULL, FRESH):
            url = rig.postgres.create_database(name)
            apply_migrations(url, load_migrations(migrations_directory()), lambda _: None)
        with rig.connect_to(FULL) as conn:
            indexes = _drop_indexes(conn)
            timed("history", lambda: _write_history(conn, rows - lived, end - SPAN, step, say))
            timed("indexes", lambda: _make_indexes(conn, indexes, say))
            timed("vacuum", lambda: _run(conn, "VACUUM (ANALYZE)", "CHECKPOINT"))
    with scale_rig(directory) as rig, rig.connect_to(FULL) as full, rig.connect_to(FRESH) as fresh:
        first, from_at = rows - lived + 1, end - step * lived
        timed("lives", lambda: _live(full, first, lived, from_at, step, say))
        timed("autovacuum", lambda: _wait_for_autovacuum(full))
        for conn, number in ((full, rows + 1), (fresh, 1)):
            _live(conn, number, RECENT, end, timedelta(hours=1) / RECENT, lambda _: None)
            _run_file(
                conn,
                "scale_open.sql",
                {"first": number + RECENT, "last": number + RECENT + OPEN - 1},
            )
            _set_sequences(conn)
            # Of the full one only what autovacuum did by itself.
        _run(fresh, "ANALYZE")
    built = Built(rows, lived, datetime.now(UTC).isoformat(timespec="seconds"), seconds)
    (directory / "built.json").write_text(json.dumps(asdict(built)), encoding="utf-8")
    return built


def _statements(file: str) -> list[bytes]:
    text = (HERE / file).read_text(encoding="utf-8")
    # psycopg's own percent signs stay single.
    text = text.replace("%", "%%").replace("%%(", "%(")
    return [it.encode() for it in text.split(";\n") if it.strip()]


def _run_file(conn: psycopg.Connection, file: str, values: dict[str, object]) -> None:
    for statement in _statements(file):
        conn.execute(statement, values)


def _run(conn: psycopg.Connection, *statements: str) -> None:
    for statement in statements:
        conn.execute(statement.encode())


def _drop_indexes(conn: psycopg.Connection) -> list[str]:
    """What makes the indexes again. Primary keys stay: they ascend, and others refer to them."""
    made: list[str] = []
    constraints = conn.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'u' AND conrelid::regclass::text = ANY(%s)",
        [list(TABLES)],
    ).fetchall()
    for table, name, definition in constraints:
        _run(conn, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        made.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    indexes = conn.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s)"
        " AND indexname NOT LIKE '%%_pkey'",
        [list(TABLES)],
    ).fetchall()
    for name, definition in indexes:
        _run(conn, f"DROP INDEX {name}")
        made.append(definition)
    return made


def _write_history(
    conn: psycopg.Connection, rows: int, begin: datetime, step: timedelta, say: Say
) -> None:
    """In one transaction with the (empty) tables' truncation, so that nothing of it is logged."""
    # No foreign key is looked up: each row's counterpart has the same number.
    _run(conn, "SET session_replication_role = replica")
    with conn.transaction():
        _run(conn, f"TRUNCATE {', '.join(TABLES)} CASCADE")
        for table, statement in zip(TABLES, _statements("scale_history.sql"), strict=True):
            started = time.monotonic()
            for first in range(1, rows + 1, CHUNK):
                last = min(rows, first + CHUNK - 1)
                conn.execute(
                    statement, {"first": first, "last": last, "begin": begin, "step": step}
                )
                if first // CHUNK % 8 == 7:
                    say(f"  {table}: {last:,} of {rows:,}")
            say(f"  {table}: {time.monotonic() - started:.0f} s")
    _run(conn, "RESET session_replication_role")
    _set_sequences(conn)


def _make_indexes(conn: psycopg.Connection, definitions: list[str], say: Say) -> None:
    for number, definition in enumerate(definitions, 1):
        _run(conn, definition)
        say(f"  index {number} of {len(definitions)}")


def _live(
    conn: psycopg.Connection, first: int, count: int, begin: datetime, step: timedelta, say: Say
) -> None:
    """From intent to webhook, a chunk at a time; each statement is a commit."""
    for number in range(0, count, LIVED_CHUNK):
        values: dict[str, object] = {
            "first": first + number,
            "last": first + min(count, number + LIVED_CHUNK) - 1,
            # The statements count from the number of the payment.
            "begin": begin - step * first,
            "step": step,
        }
        _run_file(conn, "scale_lives.sql", values)
        if number // LIVED_CHUNK % 20 == 19:
            say(f"  lives: {number + LIVED_CHUNK:,} of {count:,}")


def _wait_for_autovacuum(conn: psycopg.Connection) -> None:
    """Until it is through with what was lived, as it would be after days and not minutes."""
    give_up = time.monotonic() + AUTOVACUUM_S
    while True:
        # The statistics of this session's last statement come within a second.
        time.sleep(LOOK_S)
        is_due = conn.execute(DUE_FOR_VACUUM, [list(TABLES)]).rowcount > 0
        if not is_due or time.monotonic() > give_up:
            return


def _set_sequences(conn: psycopg.Connection) -> None:
    for table in TABLES:
        _run(
            conn,
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'),"
            f" (SELECT coalesce(max(id), 1) FROM {table}))",
        )

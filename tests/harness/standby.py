"""A second Postgres that follows the first and can take over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from mpesa_devkit.embedded import EmbeddedPostgres


class Standby(EmbeddedPostgres):
    """A copy of `primary`, made when it is created, that replays what the primary writes."""

    def __init__(
        self,
        directory: Path,
        primary: EmbeddedPostgres,
        *,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, durable=False, settings=settings)
        self.directory.mkdir(parents=True)
        self._prepare_user()
        # A slot of its own is not needed: the tests write little.
        self._run(
            "pg_basebackup",
            *("-D", self.directory / "data", "-d", primary.url(), "-R", "-X", "stream"),
            *("-c", "fast", "--no-sync"),
        )
        self.start()

    def promote(self) -> None:
        """Take over: from now on it accepts writes."""
        with psycopg.connect(self.url(), autocommit=True) as conn:
            assert conn.execute("SELECT pg_promote(true, 30)").fetchone() == (True,)


@contextmanager
def followed(primary: EmbeddedPostgres) -> Iterator[None]:
    """Inside the block the primary commits nothing that its standby has not."""
    _set_standbys(primary, "SET synchronous_standby_names = '*'")
    try:
        yield
    finally:
        _set_standbys(primary, "RESET synchronous_standby_names")


def _set_standbys(primary: EmbeddedPostgres, change: str) -> None:
    with psycopg.connect(primary.url(), autocommit=True) as conn:
        conn.execute(f"ALTER SYSTEM {change}".encode())
        conn.execute("SELECT pg_reload_conf()")


@contextmanager
def standby_of(primary: EmbeddedPostgres, directory: Path) -> Iterator[Standby]:
    """A standby for as long as the block runs."""
    made = Standby(directory, primary)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


def url_of_both(database_url: str, first: EmbeddedPostgres, second: EmbeddedPostgres) -> str:
    """The URL of whichever of the two takes writes."""
    path = urlsplit(database_url).path
    return (
        f"postgresql://postgres@127.0.0.1:{first.port},127.0.0.1:{second.port}{path}"
        "?target_session_attrs=read-write"
    )

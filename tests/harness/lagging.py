"""A Postgres whose replica lags behind, and a database that is restored from a dump."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg

from harness.standby import Standby, url_of_both
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)

NAME = "lossy"


class LaggingPostgres:
    """A server, and a copy of its files that stands for a replica which stopped receiving."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "postgres"
        self.server = EmbeddedPostgres(directory, durable=False)

    @property
    def url(self) -> str:
        return self.server.url(NAME)

    def start(self) -> None:
        self.server.start()
        self.server.create_database(NAME)
        apply_migrations(self.url, load_migrations(migrations_directory()), lambda _: None)

    def restart(self) -> None:
        """As a crash of the server does; the replica stays here from this moment on."""
        self.server.stop()
        self._shell("rm", "-rf", "lagging")
        self._shell("cp", "-a", "data", "lagging")
        self.server.start()

    def fail_over(self, *, lossy: bool = True) -> None:
        """The server is gone for good, and the replica takes over: with a new timeline.

        Without loss it is a synchronous replica: it has everything.
        """
        self.server.stop()
        if lossy:
            self._shell("rm", "-rf", "data")
            self._shell("mv", "lagging", "data")
        self._shell("cp", "-a", "data/PG_VERSION", "data/standby.signal")
        self.server.start()
        with psycopg.connect(self.server.url(), autocommit=True) as conn:
            conn.execute("SELECT pg_promote(true, 30)")

    def dump(self, file: Path) -> None:
        """A backup of the database, as `pg_dump` makes it."""
        self._client("pg_dump", "--format=custom", f"--file={file}", self.url)

    def restore(self, file: Path) -> None:
        """Into a database made anew, in the place of the old one."""
        self.server.drop_database(NAME)
        self.server.create_database(NAME)
        self._client("pg_restore", f"--dbname={self.url}", "--single-transaction", str(file))

    def _client(self, program: str, *arguments: str) -> None:
        command = [str(self.server.program(program)), *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def _shell(self, *command: str) -> None:
        subprocess.run(command, check=True, cwd=self._directory)


class ReplicatedPostgres(LaggingPostgres):
    """A server and an asynchronous replica, both in the URL."""

    @property
    def url(self) -> str:
        return url_of_both(f"postgresql:///{NAME}", self.server, self.standby)

    def start(self) -> None:
        self.server.start()
        self.server.create_database(NAME)
        own = self.server.url(NAME)
        apply_migrations(own, load_migrations(migrations_directory()), lambda _: None)
        self.standby = Standby(self._directory / "standby", self.server)

    def cut_off(self) -> None:
        """From now on the replica receives nothing. (What it has received it would replay.)"""
        with psycopg.connect(self.standby.url(), autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET primary_conninfo = ''")
            conn.execute("SELECT pg_reload_conf()")
            receiver = "SELECT count(*) FROM pg_stat_wal_receiver"
            wait_for(lambda: conn.execute(receiver).fetchone() == (0,), what="the cut")

    def lag_s(self) -> float:
        """How old the newest commit of the replica is."""
        with psycopg.connect(self.standby.url(), autocommit=True) as conn:
            row = conn.execute(
                "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())"
            ).fetchone()
        assert row is not None
        return float(row[0])

    def fail_over(self, *, lossy: bool = True) -> None:
        """The server is gone for good, and the replica takes over."""
        assert lossy
        self.server.stop()
        self.standby.promote()

    def stop(self) -> None:
        """End both."""
        self.standby.stop()
        self.server.stop()

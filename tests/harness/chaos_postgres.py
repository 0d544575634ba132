"""The Postgres of a chaos run: the server in charge, its replicas, its backups."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from harness import shell
from harness.hanging import children, send_all
from harness.proxy import Proxy
from harness.standby import Standby
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.store.migrations import apply_migrations, load_migrations, migrations_directory

NAME = "gateway"
# Enough for all pools; few enough to be used up. The log is small because the disk is.
SETTINGS = {
    "max_connections": "150",
    "max_wal_size": "96MB",
    "min_wal_size": "32MB",
    "wal_keep_size": "64MB",
}
OPERATOR = "nemesis"


class ChaosPostgres:
    """One server is in charge at a time; `lead` hands over to a replica of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)
        self.server = EmbeddedPostgres(self._next(), settings=SETTINGS)
        self._proxy: Proxy | None = None

    def _next(self) -> Path:
        path = self.directory / str(next(self._numbers))
        path.mkdir()
        return path

    @property
    def url(self) -> str:
        """Of the server in charge, not through the bad network."""
        return self.server.url(NAME)

    def start(self) -> None:
        """With an empty database of the newest schema."""
        self.server.start()
        apply_migrations(
            self.server.create_database(NAME),
            load_migrations(migrations_directory()),
            lambda _: None,
        )

    def reached_by(self, proxy: Proxy) -> None:
        """Whoever connects through the proxy reaches the server in charge."""
        self._proxy = proxy

    def stop(self) -> None:
        """The server in charge; at the end of the run."""
        self.server.stop()

    # --- replicas ---------------------------------------------------------------------------------

    def make_standby(self) -> Standby:
        """A replica that streams from the server in charge, made by Postgres's own programs."""
        return Standby(self._next(), self.server, settings=SETTINGS)

    def follow_synchronously(self) -> None:
        """From now on nothing is committed that the replica has not."""
        with psycopg.connect(self.server.url(), autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            conn.execute("SELECT pg_reload_conf()")

    def is_synchronous(self) -> bool:
        """Whether a replica has everything that is committed."""
        with psycopg.connect(self.server.url(), autocommit=True) as conn:
            found = conn.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
            return found.fetchone() is not None

    def cut_off(self, standby: Standby) -> None:
        """From now on the replica receives nothing."""
        with psycopg.connect(standby.url(), autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET primary_conninfo = ''")
            conn.execute("SELECT pg_reload_conf()")

    def is_cut_off(self, standby: Standby) -> bool:
        """Whether no WAL comes in any more."""
        with psycopg.connect(standby.url(), autocommit=True) as conn:
            return conn.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone() is None

    def lead(self, standby: Standby) -> EmbeddedPostgres:
        """Promote the replica and let the name of the server point to it; the server before."""
        standby.promote()
        before, self.server = self.server, standby
        assert self._proxy is not None
        self._proxy.redirect(standby.port)
        return before

    def discard(self, server: EmbeddedPostgres) -> None:
        """A server that is no longer in charge, whether it runs or stands still."""
        kill_all(server)
        shutil.rmtree(server.directory, ignore_errors=True)

    # --- backups ----------------------------------------------------------------------------------

    def dump(self, file: Path) -> None:
        """As docs/recovery.md says."""
        self._client("pg_dump", "--format=custom", f"--file={file}", self.url)

    def restore(self, file: Path) -> None:
        """As docs/recovery.md says, with the schema dropped in the place of `psql`."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute("DROP SCHEMA public CASCADE")
            conn.execute("CREATE SCHEMA public")
        options = ("--no-owner", "--single-transaction")
        self._client("pg_restore", f"--dbname={self.url}", *options, str(file))

    def _client(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.server.program(program)), *arguments], check=True, capture_output=True
        )

    def operate(self, *arguments: str) -> str:
        """A command of `mpesa-gateway`, as an operator types it."""
        command = (sys.executable, "-m", "mpesa_gateway", *arguments)
        done = shell.run(*command, env={"MPESA_DATABASE_URL": self.url})
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def recover(self, *arguments: str, why: str = "") -> dict[str, Any]:
        """`mpesa-gateway recover`; its report."""
        signed = ("--by", OPERATOR, "--reason", why) if why else ()
        found: dict[str, Any] = json.loads(
            self.operate("recover", "--json", "--limit", "1000", *arguments, *signed)
        )
        return found


def kill_all(server: EmbeddedPostgres) -> None:
    """SIGKILL to the postmaster and every backend at once: the machine is gone."""
    pid = server.process.pid
    victims = [pid, *children(pid)]
    # Who stands still cannot fork while its children are counted.
    send_all(victims[:1], signal.SIGSTOP)
    send_all([*children(pid), *victims], signal.SIGKILL)
    server.process.kill()

"""A real PgBouncer in front of a test's Postgres."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from harness.needs import need
from mpesa_devkit.embedded import UNPRIVILEGED_USER
from mpesa_devkit.processes import Process, answers, free_port

ROOT = Path(__file__).resolve().parents[2]


def program() -> str:
    """PgBouncer: installed, or fetched by scripts/pgbouncer; the test is skipped without apt."""
    found = subprocess.run(
        [str(ROOT / "scripts" / "pgbouncer")], capture_output=True, text=True, check=False
    )
    if found.returncode != 0 and os.environ.get("MPESA_POOLER_TESTS") == "required":
        raise AssertionError(f"CI has no pgbouncer: {found.stderr}")
    need(found.returncode == 0, f"no pgbouncer: {found.stderr.strip()}")
    return found.stdout.strip()


class PgBouncer:
    """One pooler for every database of a server, on a free port of 127.0.0.1."""

    def __init__(
        self, directory: Path, database_url: str, *, mode: str, size: int = 3, wait_s: int = 120
    ) -> None:
        self.port = free_port()
        self._path = urlsplit(database_url).path
        postgres = urlsplit(database_url)
        config = directory / "pgbouncer.ini"
        config.write_text(
            f"""
[databases]
* = host={postgres.hostname} port={postgres.port} user={postgres.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
query_wait_timeout = {wait_s}
max_client_conn = 200
""",
            encoding="utf-8",
        )
        for path in (directory, config):
            path.chmod(0o755)
        self._process = Process(
            "pgbouncer",
            [program(), str(config)],
            log=directory / "pgbouncer.log",
            # It refuses to run as root.
            user=UNPRIVILEGED_USER if os.geteuid() == 0 else None,
        )
        self._process.wait_until(lambda: answers(self.port))

    @property
    def url(self) -> str:
        """The test's database by way of the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}{self._path}"

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()

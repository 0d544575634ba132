"""What is measured on: an embedded Postgres and Redis, the real processes, the peers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_devkit.processes import Process, answers, clean_env, free_port

HERE = Path(__file__).parent
API_KEY = "bench-api-key-of-the-default-merchant"
# The platform's list as an operator sets it (Safaricom's published addresses), behind one proxy.
SAFARICOM_IPS = (
    "196.201.214.200,196.201.214.206,196.201.213.114,196.201.214.207,196.201.214.208,"
    "196.201.213.44,196.201.212.127,196.201.212.138,196.201.212.129,196.201.212.136,"
    "196.201.212.74,196.201.212.69"
)
PEER_TABLE = "peer_callbacks"


class MissingToolError(Exception):
    """A compiler that one part of the benchmark needs is not installed."""


@dataclass
class Running:
    """A server that listens on a port, and how long it took to be ready."""

    process: Process
    port: int
    start_s: float


class Rig:
    """One Postgres with the schema, one Redis, and what is started on them."""

    def __init__(self, directory: Path, *, commit_ms: float = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        env = None
        if commit_ms:
            library = str(build_slow_disk(directory))
            env = {"LD_PRELOAD": library, "SLOW_DISK_US": str(int(commit_ms * 1000))}
        self.postgres = EmbeddedPostgres(directory, env=env)
        self.redis = EmbeddedRedis(directory)
        self._started: list[Process] = []
        self._numbers = 0

    @property
    def database_url(self) -> str:
        """The gateway's database."""
        return self.postgres.url()

    def start(self) -> None:
        """Both stores, the schema, and the peers' table: ours without the foreign key."""
        self.postgres.start()
        self.redis.start()
        command = [sys.executable, "-m", "mpesa_gateway", "migrate"]
        subprocess.run(  # noqa: S603 - our own command
            command, env=self.gateway_env({"metrics_port": "0"}), check=True, capture_output=True
        )
        with self.connect() as conn:
            conn.execute(f"CREATE TABLE {PEER_TABLE} (LIKE callbacks INCLUDING ALL)".encode())

    def stop(self) -> None:
        """Everything, the stores last."""
        for process in self._started:
            process.stop()
        self.redis.stop()
        self.postgres.stop()

    def connect(self) -> psycopg.Connection:
        """A connection in autocommit mode."""
        return psycopg.connect(self.database_url, autocommit=True)

    def api(self, port: int | None = None, **settings: str) -> Running:
        """`mpesa-gateway api`, ready. Its callback URL is its own address."""
        port = port or free_port()
        settings = {"safaricom_callback_url": f"http://127.0.0.1:{port}/callback", **settings}
        env = self.gateway_env({"server_port": str(port), **settings})
        return self._start("api", ["-m", "mpesa_gateway", "api"], port, env, f"{port}/readyz")

    def worker(self, **settings: str) -> Running:
        """`mpesa-gateway worker`, ready."""
        port = free_port()
        env = self.gateway_env({"metrics_port": str(port), **settings})
        return self._start("worker", ["-m", "mpesa_gateway", "worker"], port, env, f"{port}/livez")

    def simulator(self, **settings: str) -> Running:
        """`mpesa-gateway simulator`, ready."""
        port = free_port()
        values = {"port": str(port), "host": "127.0.0.1", **settings}
        env = {f"MPESA_SIMULATOR_{name.upper()}": value for name, value in values.items()}
        command = ["-m", "mpesa_gateway", "simulator"]
        return self._start("simulator", command, port, env, f"{port}/health")

    def peer(self, name: str) -> Running:
        """A peer of `bench/peers/`, ready. Raises MissingToolError."""
        port = free_port()
        arguments = [str(port), self.database_url]
        if name == "go":
            return self._start(name, arguments, port, {}, "", program=build_go(self.directory))
        return self._start(name, ["-m", f"bench.peers.{name}", *arguments], port, {}, "")

    def payment_peer(self, name: str, safaricom: str) -> Running:
        """A peer that takes whole payments, ready. Raises MissingToolError."""
        port = free_port()
        arguments = [str(port), self.database_url, safaricom]
        if name == "go":
            program = build_go(self.directory)
            return self._start(name, ["payments", *arguments], port, {}, "", program=program)
        return self._start(name, ["-m", f"bench.peers.{name}", *arguments], port, {}, "")

    def safaricom(self) -> Running:
        """The stand-in for Safaricom that costs little. Raises MissingToolError without Go."""
        port = free_port()
        program = build_go(self.directory)
        return self._start("safaricom", ["safaricom", str(port)], port, {}, "", program=program)

    def gateway_env(self, settings: Mapping[str, str]) -> dict[str, str]:
        """As shipped: JSON logs, metrics, tokens and allowlist are on."""
        values = {
            "server_host": "127.0.0.1",
            "metrics_port": str(free_port()),
            "database_url": self.database_url,
            "redis_url": self.redis.url(),
            "internal_secret": API_KEY,
            "safaricom_consumer_key": "bench-consumer-key",
            "safaricom_consumer_secret": "bench-consumer-secret",
            "safaricom_passkey": "bench-passkey-0123456789",
            "safaricom_short_code": "174379",
            "safaricom_callback_url": "http://127.0.0.1:9/callback",
            "safaricom_base_url": "http://127.0.0.1:9",
            "safaricom_ips": SAFARICOM_IPS,
            "trusted_proxies": "127.0.0.1/32",
            "callback_token_required": "true",
            "webhook_allow_private": "true",
            **settings,
        }
        return clean_env({f"MPESA_{name.upper()}": value for name, value in values.items()})

    def end(self, running: Running) -> None:
        """Stop one of them."""
        self._started.remove(running.process)
        running.process.stop()

    def _start(
        self,
        name: str,
        arguments: list[str],
        port: int,
        env: Mapping[str, str],
        ready: str,
        *,
        program: str = sys.executable,
    ) -> Running:
        self._numbers += 1
        log = self.directory / f"{name}-{self._numbers}.log"
        root = {"PYTHONPATH": str(HERE.parent)} if "bench.peers" in " ".join(arguments) else {}
        begun = time.monotonic()
        process = Process(name, [program, *arguments], log=log, env=clean_env({**env, **root}))
        self._started.append(process)
        process.wait_until(lambda: _is_ready(ready) if ready else answers(port))
        return Running(process, port, time.monotonic() - begun)


def _is_ready(path: str) -> bool:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{path}", timeout=5) as answer,
    ):
        return bool(answer.status == 200)
    return False


@contextmanager
def rig(*, commit_ms: float = 0) -> Iterator[Rig]:
    """A started rig in a temporary directory; `commit_ms` is what each fsync takes longer."""
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="mpesa-gateway-bench-"))
        made = Rig(Path(name) / "rig", commit_ms=commit_ms)
        stack.callback(made.stop)
        Path(name).chmod(0o755)
        made.start()
        yield made


def build_slow_disk(directory: Path) -> Path:
    """The library that makes fsync slow. Raises MissingToolError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingToolError("a C compiler, for the slow disk")
    library = directory / "slow_disk.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library)]
    command += [str(HERE / "slow_disk.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own file
    library.chmod(0o755)
    return library


def build_go(directory: Path) -> str:
    """The Go peer. Raises MissingToolError without Go, or when its modules cannot be had."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise MissingToolError("Go, for its peer")
    target = str(directory / "go-peer")
    if not Path(target).exists():
        try:
            subprocess.run(  # noqa: S603 - our own file
                [go, "build", "-o", target, "."],
                cwd=HERE / "peers" / "go",
                env={**os.environ, "GOFLAGS": "-mod=readonly"},
                check=True,
                capture_output=True,
            )
        except subprocess.CalledProcessError as error:
            raise MissingToolError("Go's module pgx, for its peer") from error
    return target


def wait_for(look: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Return once it is true. Raises RuntimeError at the deadline."""
    give_up = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > give_up:
            raise RuntimeError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)

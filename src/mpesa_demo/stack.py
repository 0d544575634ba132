"""The whole system as real child processes: in a temporary directory, or in one that is kept."""

from __future__ import annotations

import base64
import contextlib
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from http.client import HTTPException
from pathlib import Path

from mpesa_demo.ending import Ending
from mpesa_demo.scenarios import (
    CALLBACK_DELAY_S,
    FIRST_QUERY_AFTER_S,
    HANG_DELAY_S,
    LATE_DELAY_S,
    NEXT_QUERY_AFTER_S,
    PROMPT_LIFE_S,
)
from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_devkit.processes import Process, answers, clean_env
from mpesa_gateway.clients.json_call import call
from mpesa_gateway.errors import GatewayError

HOST = "127.0.0.1"
SHORT_CODE = "174379"
DATABASE_CONNECTIONS = 8
MIGRATE_TIMEOUT_S = 60.0
# Twice what a graceful end takes; then it is killed.
STOP_TIMEOUT_S = 10.0
LOG_LINES = 15
# Signal 0 asks a process for nothing.
WAIT_ONLY = 0


# gunicorn's master, killed at once, would leave its worker behind: when the demo is killed, Linux
# asks it to stop instead. Set by the program itself, over what `Process` has set.
_STOP_WITH_PARENT = (
    "import ctypes, os, signal, sys;"
    "sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, signal.SIGTERM);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class StackError(GatewayError):
    """A part of the system did not start, or ended by itself."""


@dataclass(frozen=True)
class Keys:
    """Random in each run, and of no use anywhere else."""

    api_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    consumer_key: str = field(repr=False)
    consumer_secret: str = field(repr=False)
    passkey: str = field(repr=False)

    @classmethod
    def random(cls) -> Keys:
        """Fresh ones."""
        return cls(
            api_key=secrets.token_urlsafe(32),
            webhook_secret="whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
            consumer_key=secrets.token_urlsafe(24),
            consumer_secret=secrets.token_urlsafe(24),
            passkey=secrets.token_hex(32),
        )


@dataclass(frozen=True)
class Ports:
    """Where each process listens on 127.0.0.1."""

    simulator: int
    api: int
    api_metrics: int
    worker_metrics: int

    @classmethod
    def free(cls, **fixed: int) -> Ports:
        """Ports that nobody uses now, held at once so that they differ; `fixed` are given."""
        with contextlib.ExitStack() as held:
            sockets = {
                it.name: held.enter_context(socket.socket())
                for it in fields(cls)
                if it.name not in fixed
            }
            for sock in sockets.values():
                sock.bind((HOST, 0))
            return cls(**fixed, **{name: it.getsockname()[1] for name, it in sockets.items()})


class Stack:
    """Postgres, Redis, the simulator, the API and a worker. `say` is told what is up.

    `directory` is kept, and so are the payments in it; without one there is a temporary directory.
    `settings` are MPESA_ variables of the gateway, without the prefix.
    """

    def __init__(
        self,
        keys: Keys,
        say: Callable[[str, str], None],
        ending: Ending,
        *,
        ports: Ports | None = None,
        directory: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.keys = keys
        self._ending = ending
        self.ports = ports or Ports.free()
        self._say = say
        self._settings = settings or {}
        self._opened = contextlib.ExitStack()
        self._is_kept = directory is not None
        with contextlib.ExitStack() as opened:
            if directory is None:
                temporary = tempfile.TemporaryDirectory(
                    prefix="mpesa-gateway-demo-", ignore_cleanup_errors=True
                )
                directory = Path(opened.enter_context(temporary))
            self.directory = directory
            # No socket file: a directory of the user's may have a longer path than one can have.
            self._postgres = EmbeddedPostgres(directory, settings={"unix_socket_directories": ""})
            self._redis = EmbeddedRedis(directory)
            self._opened = opened.pop_all()
        self._processes: list[Process] = []

    @property
    def api_url(self) -> str:
        """The gateway."""
        return f"http://{HOST}:{self.ports.api}"

    @property
    def simulator_url(self) -> str:
        """Its Safaricom."""
        return f"http://{HOST}:{self.ports.simulator}"

    @property
    def database_url(self) -> str:
        """Postgres: no password, this machine only."""
        return self._postgres.url()

    @property
    def redis_url(self) -> str:
        """Redis."""
        return self._redis.url()

    @property
    def metrics_urls(self) -> dict[str, str]:
        """The metrics of each process."""
        ports = {"API": self.ports.api_metrics, "worker": self.ports.worker_metrics}
        return {name: f"http://{HOST}:{port}/metrics" for name, port in ports.items()}

    @property
    def logs(self) -> dict[str, Path]:
        """The file that each process writes to, in the order of their start."""
        stores = {name: self.directory / name / "log" for name in ("postgres", "redis")}
        return {**stores, **{process.log.stem: process.log for process in self._processes}}

    def start(self) -> None:
        """Start everything; what has started is the caller's to stop.

        Raises StackError, and EndedError after a signal.
        """
        with _explained("Postgres"):
            self._postgres.start()
        self._say("Postgres", f"{HOST}:{self._postgres.port}")
        self._ending.check()
        with _explained("Redis"):
            self._redis.start()
        self._say("Redis", f"{HOST}:{self._redis.port}")
        self._ending.check()
        self._migrate()
        self._say("schema", "every migration applied")
        self._start_gateway()

    def check(self) -> None:
        """Raise StackError when a process has ended by itself, EndedError after a signal."""
        self._ending.check()
        for process in self._processes:
            if not process.is_running():
                raise StackError(
                    _sentence(f"{process.name} ended by itself", process.tail(LOG_LINES))
                )

    def stop(self) -> None:
        """End everything: callers before those they call, the stores last. Safe to repeat."""
        started, self._processes = self._processes, []
        for process in started:
            process.send(signal.SIGTERM)
        for process in started:
            process.stop(WAIT_ONLY, timeout_s=STOP_TIMEOUT_S)
        self._redis.stop()
        if self._is_kept:
            self._postgres.stop_cleanly(STOP_TIMEOUT_S)
        else:
            self._postgres.stop()
        self._opened.close()

    def is_gone(self) -> bool:
        """Whether nothing listens any more."""
        ports = [self._postgres.port, self._redis.port, *vars(self.ports).values()]
        return not any(answers(port) for port in ports)

    def _migrate(self) -> None:
        process = self._run("migrate", self._gateway_env(metrics_port=0))
        self._processes.remove(process)
        if process.stop(WAIT_ONLY, timeout_s=MIGRATE_TIMEOUT_S) != 0:
            raise StackError(_sentence("migrate failed", process.tail(LOG_LINES)))

    def _start_gateway(self) -> None:
        """Simulator, API and worker: started together, awaited one after the other.

        In this order they are asked to stop: first who calls, then who is called.
        """
        ports = self.ports
        simulator = self._run("simulator", self._simulator_env())
        api = self._run("api", self._gateway_env(metrics_port=ports.api_metrics))
        worker = self._run("worker", self._gateway_env(metrics_port=ports.worker_metrics))
        self._await(simulator, lambda: _answers_200(f"{self.simulator_url}/health"))
        self._say("simulator", f"{self.simulator_url}, instead of Safaricom")
        self._await(api, lambda: _answers_200(f"{self.api_url}/readyz"))
        self._say("API", self.api_url)
        self._await(worker, lambda: answers(ports.worker_metrics))
        self._say("worker", "settles payments, sends webhooks")

    def _run(self, command: str, env: Mapping[str, str]) -> Process:
        wrapper = ["-c", _STOP_WITH_PARENT] if command == "api" else []
        process = Process(
            f"mpesa-gateway {command}",
            [sys.executable, *wrapper, "-m", "mpesa_gateway", command],
            log=self.directory / f"{command}.log",
            env=clean_env(env),
        )
        self._processes.append(process)
        return process

    def _await(self, process: Process, is_up: Callable[[], bool]) -> None:
        def look() -> bool:
            self._ending.check()
            return is_up()

        with _explained(process.name):
            process.wait_until(look)

    def _simulator_env(self) -> dict[str, str]:
        keys = self.keys
        settings = {
            "host": HOST,
            "port": str(self.ports.simulator),
            "credentials": f"{keys.consumer_key}={keys.consumer_secret}",
            "passkeys": f"{SHORT_CODE}={keys.passkey}",
            "callback_delay": f"{CALLBACK_DELAY_S}s",
            "late_delay": f"{LATE_DELAY_S}s",
            "hang_delay": f"{HANG_DELAY_S}s",
        }
        named = {f"MPESA_SIMULATOR_{name.upper()}": value for name, value in settings.items()}
        return {**named, "MPESA_LOG_FORMAT": "console"}

    def _gateway_env(self, *, metrics_port: int) -> dict[str, str]:
        keys = self.keys
        settings = {
            "SERVER_HOST": HOST,
            "SERVER_PORT": str(self.ports.api),
            "METRICS_PORT": str(metrics_port),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "INTERNAL_SECRET": keys.api_key,
            "WEBHOOK_SECRET": keys.webhook_secret,
            "SAFARICOM_CONSUMER_KEY": keys.consumer_key,
            "SAFARICOM_CONSUMER_SECRET": keys.consumer_secret,
            "SAFARICOM_PASSKEY": keys.passkey,
            "SAFARICOM_SHORT_CODE": SHORT_CODE,
            "SAFARICOM_BASE_URL": self.simulator_url,
            "SAFARICOM_CALLBACK_URL": f"{self.api_url}/callback",
            "SAFARICOM_QUERY_PER_MINUTE": "0",
            # Nobody's phone rings, and a developer pays with the same one all day.
            "PROMPTS_PER_PHONE_PER_HOUR": "0",
            "QUERY_SCHEDULE": _schedule(FIRST_QUERY_AFTER_S, NEXT_QUERY_AFTER_S),
            "PROMPT_LIFE": _schedule(PROMPT_LIFE_S),
            "SWEEP_INTERVAL": "500ms",
            "WEBHOOK_RETRY_SCHEDULE": "1s,2s,4s,8s",
            "WEBHOOK_ALLOW_PRIVATE": "true",
            "DB_MAX_CONNS": str(DATABASE_CONNECTIONS),
            "LOG_FORMAT": "console",
            **self._settings,
        }
        return {f"MPESA_{name}": value for name, value in settings.items()}


def _schedule(*waits_s: float) -> str:
    return ",".join(f"{wait_s * 1000:.0f}ms" for wait_s in waits_s)


def _answers_200(url: str) -> bool:
    try:
        return call(url).status == 200
    except (OSError, HTTPException):
        return False


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what a process raises when it does not start into advice."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        what, found, log = str(error).partition(":\n")
        if not found:
            what, log = f"{name} did not start", str(error)
        raise StackError(_sentence(what, log)) from error


def _sentence(what: str, log: str) -> str:
    """What happened, the end of the log, and what to do."""
    return (
        f"{what}. The end of its log:\n\n{log.strip() or '(it wrote nothing)'}\n\n"
        f"The demo needs 127.0.0.1, about 200 MB in {tempfile.gettempdir()} (TMPDIR chooses another"
        " place) and 1 GB of memory. If these are there, please report it with the lines above."
    )

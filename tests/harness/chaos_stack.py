"""Everything that a chaos run torments: two APIs, two workers, Postgres, Redis, Safaricom."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import redis
import requests
from psycopg.rows import dict_row

from harness.chaos_endpoints import Endpoints
from harness.chaos_postgres import ChaosPostgres
from harness.crash import FINAL_STATUSES, SHOP, SHOP_KEY, Asked, Row
from harness.hanging import children, send_all
from harness.merchants import write_merchant
from harness.processes import Processes, processes
from harness.proxy import Network, Proxy
from harness.settings import API_KEY
from harness.small_disk import SmallDisk
from harness.wrong_clock import WrongClocks
from mpesa_devkit.embedded import EmbeddedRedis
from mpesa_devkit.processes import Process, clean_env, free_port

# Leases, sweeps and pools are the product's own defaults: the recovery that is measured is what
# an operator gets. Only Safaricom is asked sooner, and endpoints are tried again sooner.
SETTINGS = {
    "sweep_interval": "5s",
    "query_schedule": "5s,5s,10s,10s,15s",
    "prompt_life": "5s",
    "webhook_retry_schedule": "500ms,1s,2s,4s," + ",".join(["8s"] * 16),
}
SIMULATOR = {"callback-delay": "1s", "late-delay": "8s", "hang-delay": "20s"}
CLIENT_TIMEOUT_S = 10.0
# A machine that does much else besides.
START_TIMEOUT_S = 120.0
RESTART_TIMEOUT_S = 60.0
# Clients that repeat the keys of payments that may be lost, and how long they do it together: an
# operator waits for them, and everybody else for the operator.
REPEATERS = 16
REPEAT_FOR_S = 20.0
REPEAT_PAUSE_S = 0.5


class SimulatorProcess:
    """Safaricom in a process of its own; its ledger is on disk before anybody is answered."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        options = {**SIMULATOR, "port": str(self.port), "ledger-file": str(directory / "ledger")}
        self.process = Process(
            "simulator",
            [
                *(sys.executable, "-m", "daraja_simulator", "--no-subscriber-lock"),
                *(part for name, value in options.items() for part in (f"--{name}", value)),
            ],
            log=directory / "simulator.log",
            env=clean_env({}),
        )
        self.process.wait_until(lambda: self._get("/health") is not None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _get(self, path: str) -> Any:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}{path}", timeout=60).json()
        return None

    def ledger(self) -> dict[str, list[Row]]:
        """What happened, by kind."""
        ledger: dict[str, list[Row]] = self._get("/ledger")
        return ledger

    def is_idle(self) -> bool:
        """Whether no customer and no callback is awaited."""
        return bool(self._get("/")["payments_under_way"] == 0)

    def change(self, **settings: object) -> None:
        """Change settings while it runs."""
        requests.patch(f"{self.url}/settings", json=settings, timeout=10).raise_for_status()

    def expire_tokens(self) -> None:
        """Forget every OAuth token."""
        requests.post(f"{self.url}/expire-tokens", timeout=10).raise_for_status()


@dataclass
class Server:
    """One of the processes that die. `begin` starts it anew, `is_up` asks it."""

    name: str
    begin: Callable[[], Process]
    is_up: Callable[[Process], bool]
    port: int = 0
    # Nobody starts it again while this is true.
    is_given_up: bool = False
    process: Process = field(init=False)

    def start(self) -> None:
        self.process = self.begin()

    def pids(self) -> list[int]:
        """Its process and the children of it: as in a container, they die together."""
        return [*children(self.process.pid), self.process.pid]

    def is_ready(self) -> bool:
        """Whether it runs, and answers."""
        with contextlib.suppress(requests.RequestException, redis.RedisError, OSError):
            return self.process.is_running() and self.is_up(self.process)
        return False

    def kill(self) -> None:
        """SIGKILL to all of it, also when it stands still."""
        send_all(self.pids(), signal.SIGKILL)
        self.process.kill()


class ChaosStack:
    """The running system, and what its clients and witnesses need of it."""

    def __init__(
        self,
        directory: Path,
        postgres: ChaosPostgres,
        redis_server: EmbeddedRedis,
        simulator: SimulatorProcess,
        receiver: Endpoints,
        network: Network,
        *,
        disk: SmallDisk,
        clocks: WrongClocks,
    ) -> None:
        self.directory = directory
        self.postgres = postgres
        self.disk = disk
        self.clocks = clocks
        # When the database may have lost what it acknowledged: from and until, of time.time().
        self.losses: list[tuple[float, float]] = []
        # Holds that a process opened after an operator had accepted those of the others.
        self.late_holds = 0
        self.simulator = simulator
        self.receiver = receiver
        self.network = network
        self.asked: list[Asked] = []
        self.posted: list[Row] = []
        self.shop_secrets: list[str] = []
        self.servers: dict[str, Server] = {}
        self.port = 0
        self.restarts = 0
        self._redis = redis_server
        self.redis_url = redis_server.url()

    @property
    def database_url(self) -> str:
        """Of the server in charge."""
        return self.postgres.url

    def start(self, gateway: Processes, api_ports: list[int], balancer_port: int) -> None:
        """Return when everything is up."""
        self.port = balancer_port
        self._gateway = gateway
        for number, port in enumerate(api_ports, start=1):
            begin = self._begin("api", f"api-{number}", server_port=str(port))
            self._add(f"api-{number}", begin, _ready_at(port), port)
        for number in (1, 2):
            begin = self._begin("worker", f"worker-{number}")
            self._add(f"worker-{number}", begin, _has_started)
        self._add("postgres", self._begin_postgres, lambda _: self._answers())
        self._add("redis", self._begin_redis, lambda _: self._pongs())
        self.servers["postgres"].process = self.postgres.server.process
        self.servers["redis"].process = self._redis.process
        for server in self.servers.values():
            if not hasattr(server, "process"):
                server.start()
        for server in self.servers.values():
            server.process.wait_until(server.is_ready, START_TIMEOUT_S)

    def _add(
        self,
        name: str,
        begin: Callable[[], Process],
        is_up: Callable[[Process], bool],
        port: int = 0,
    ) -> None:
        self.servers[name] = Server(name, begin, is_up, port)

    def _begin(self, command: str, name: str, **settings: str) -> Callable[[], Process]:
        clock = self.clocks.env(name)
        return lambda: self._gateway.start_beside(command, clock, **settings)

    def _begin_postgres(self) -> Process:
        """At once, although the backends of the one that died may still be ending."""
        give_up = time.monotonic() + RESTART_TIMEOUT_S
        while True:
            try:
                self.postgres.server.start()
            except RuntimeError:
                if time.monotonic() > give_up:
                    raise
                continue
            return self.postgres.server.process

    def _begin_redis(self) -> Process:
        self._redis.start()
        return self._redis.process

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.Error):
            return bool(self.rows("SELECT 1"))
        return False

    def _pongs(self) -> bool:
        with redis.Redis.from_url(self.redis_url, socket_timeout=1) as client:
            return bool(client.ping())

    def impossible(self) -> dict[str, str]:
        """Kinds of faults that this machine cannot have, and why."""
        found = {"disk full": self.disk.why_not, "clock wrong": self.clocks.why_not}
        return {kind: why for kind, why in found.items() if why}

    def replace_the_dead(self) -> None:
        """What Kubernetes does."""
        for server in self.servers.values():
            if not server.is_given_up and not server.process.is_running():
                server.start()
                self.restarts += 1

    def kill_everything(self) -> None:
        """At the end of a run, and of a run that was broken off."""
        for server in self.servers.values():
            if hasattr(server, "process"):
                server.kill()

    # --- what clients, people and witnesses do ----------------------------------------------------

    def post(self, asked: Asked, **other: str) -> requests.Response:
        """POST /initiate; `other` are fields that differ."""
        body = {
            "amount": asked.amount,
            "phone": asked.phone,
            "webhook_url": self.receiver.url(asked.path),
            "idempotency_key": asked.key,
            **other,
        }
        key = SHOP_KEY if asked.merchant == SHOP else API_KEY
        return requests.post(
            f"http://127.0.0.1:{self.port}/initiate",
            json=body,
            headers={"X-Internal-Secret": key},
            timeout=CLIENT_TIMEOUT_S,
        )

    def repeat(self, *, since: float) -> None:
        """The same keys again of what was asked for since then and answered; as time.time()."""
        monotonic = since - time.time() + time.monotonic()
        asked = [it for it in list(self.asked) if it.answers and it.asked_at >= monotonic]
        give_up = time.monotonic() + REPEAT_FOR_S
        with ThreadPoolExecutor(REPEATERS) as clients:
            for it in asked:
                clients.submit(self._repeat, it, give_up)

    def _repeat(self, asked: Asked, give_up: float) -> None:
        """Until it is answered: for good, or that payments are held."""
        while time.monotonic() < give_up:
            with contextlib.suppress(requests.RequestException):
                response = self.post(asked)
                body = response.json()
                if response.status_code in FINAL_STATUSES or "transaction_id" in body:
                    asked.answers.append((response.status_code, body))
                    return
                if str(body.get("type")).endswith("/recovery"):
                    return
            time.sleep(REPEAT_PAUSE_S)

    @contextlib.contextmanager
    def losing(self, since: float) -> Iterator[None]:
        """Inside the block the database loses what was committed after `since`."""
        self.losses.append((since, math.inf))
        try:
            yield
        finally:
            self.losses[-1] = (since, time.time())

    def rotate_shop_secret(self) -> None:
        """A new webhook secret for the shop; the one before stays good for a while."""
        self.shop_secrets.append(f"duka-webhook-secret-{len(self.shop_secrets):06d}")
        newest_first = self.shop_secrets[-1:-3:-1]
        merchants = self.directory / "merchants"
        write_merchant(merchants, key=SHOP_KEY, webhook={"secrets": newest_first})

    def rows(self, query: str, *values: Any) -> list[Row]:
        """Straight from Postgres, not through the bad network."""
        with psycopg.connect(
            self.database_url, row_factory=dict_row, autocommit=True, connect_timeout=3
        ) as conn:
            cursor = conn.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def logs(self) -> str:
        """What every process of the gateway wrote."""
        return self._gateway.logs()


def _ready_at(port: int) -> Callable[[Process], bool]:
    url = f"http://127.0.0.1:{port}/readyz"
    return lambda _: requests.get(url, timeout=2).status_code == 200


def _has_started(process: Process) -> bool:
    return "worker started" in process.log.read_text(errors="replace")


@contextmanager
def chaos_stack(directory: Path) -> Iterator[ChaosStack]:
    """Everything, started; gone at the end, whatever happened in between."""
    for name in ("merchants", "logs", "disk", "clocks"):
        (directory / name).mkdir()
    # Postgres has a user of its own, who must get through.
    directory.chmod(0o755)
    disk, clocks = SmallDisk(directory / "disk"), WrongClocks(directory / "clocks")
    (directory / "disk").chmod(0o755)
    postgres, redis_server = ChaosPostgres(directory / "disk"), EmbeddedRedis(directory)
    network, api_ports = Network(), [free_port(), free_port()]
    with contextlib.ExitStack() as opened:
        opened.callback(disk.close)
        opened.callback(postgres.stop)
        postgres.start()
        opened.callback(redis_server.stop)
        redis_server.start()
        simulator = SimulatorProcess(directory)
        opened.callback(simulator.process.kill)
        receiver = opened.enter_context(Endpoints())
        to_postgres = opened.enter_context(Proxy(postgres.server.port, network=network))
        postgres.reached_by(to_postgres)
        balancer = opened.enter_context(Proxy(*api_ports))
        through = f"postgresql://postgres@127.0.0.1:{to_postgres.port}/gateway"
        gateway = opened.enter_context(
            processes(
                directory / "logs",
                database_url=f"{through}?sslmode=disable&gssencmode=disable",
                redis_url=redis_server.url(),
                base_url=simulator.url,
                callback_port=balancer.port,
                merchants_dir=str(directory / "merchants"),
                **SETTINGS,
            )
        )
        stack = ChaosStack(
            directory,
            postgres,
            redis_server,
            simulator,
            receiver,
            network,
            disk=disk,
            clocks=clocks,
        )
        opened.callback(stack.kill_everything)
        stack.rotate_shop_secret()
        stack.start(gateway, api_ports, balancer.port)
        yield stack

"""Redis as people have it: Sentinel, replicas, access lists, memory that is full, a cluster."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from daraja_simulator.server import RunningSimulator
from harness.gateway import open_gateway
from harness.receiver import Receiver
from harness.redises import RedisServer
from harness.tls import TlsFront
from harness.waiting import wait_for
from mpesa_devkit.processes import free_port
from mpesa_gateway.clients.redis_probe import is_cluster, probe
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.services import open_redis
from mpesa_gateway.work_queue import Notifier, WorkQueue
from mpesa_gateway.worker.dispatcher import Dispatcher

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "gateway"
# From the election until notifications go on, where a command on a new connection is quick.
RESUMED_S = 5.0
QUICK_S = 0.01


@pytest.fixture
def servers() -> Iterator[list[RedisServer]]:
    """What a test starts and appends here ends with it."""
    started: list[RedisServer] = []
    yield started
    for server in started:
        server.kill()


def start(servers: list[RedisServer], directory: Path, *settings: str) -> RedisServer:
    servers.append(RedisServer(directory, *settings))
    return servers[-1]


@contextmanager
def reading(queue: WorkQueue) -> Iterator[list[object]]:
    """A worker's thread: what it takes out of the queue."""
    taken: list[object] = []
    stopping = threading.Event()

    def read() -> None:
        while not stopping.is_set():
            message = queue.dequeue()
            if message is not None:
                taken.append(message)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield taken
    finally:
        stopping.set()
        thread.join(timeout=30)


@contextmanager
def ringing(url: str) -> Iterator[Notifier]:
    notifier = Notifier(WorkQueue(url))
    notifier.start()
    try:
        yield notifier
    finally:
        notifier.stop()


def arrives(notifier: Notifier, taken: list[object]) -> bool:
    """Ring once more; whether anything new was taken meanwhile."""
    before = len(taken)
    notifier.notify([Work(WorkKind.CALLBACK, 1)])
    threading.Event().wait(0.1)
    return len(taken) > before


def with_task(url: str) -> WorkQueue:
    queue = WorkQueue(url)
    Dispatcher(None, Notifier(queue)).register(queue)  # type: ignore[arg-type]
    return queue


def test_after_a_sentinel_fail_over_the_bell_rings_on_the_new_primary(
    tmp_path: Path, servers: list[RedisServer]
) -> None:
    primary = start(servers, tmp_path)
    replica = start(servers, tmp_path, f"replicaof 127.0.0.1 {primary.port}")
    wait_for(
        lambda: replica.client().info("replication")["master_link_status"] == "up",
        what="the replica to follow",
    )
    sentinel = RedisServer(
        tmp_path,
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1",
        f"sentinel down-after-milliseconds {SERVICE} 1000",
        f"sentinel failover-timeout {SERVICE} 3000",
        sentinel=True,
    )
    servers.append(sentinel)
    wait_for(lambda: sentinel.client().sentinel_slaves(SERVICE), what="the replica to be known")
    # A Sentinel that is gone is passed over.
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/{SERVICE}/0"

    with open_redis(url) as client, ringing(url) as notifier, reading(with_task(url)) as taken:
        client.set("key", "before")
        wait_for(lambda: arrives(notifier, taken), what="the first message")
        assert probe(url).problems == ()

        primary.kill()
        wait_for(
            lambda: str(replica.port) in str(sentinel.client().sentinel_master(SERVICE)),
            timeout_s=30,
            what="the fail-over",
        )
        wait_for(lambda: replica.client().info("replication")["role"] == "master", what="promotion")
        elected = time.monotonic()
        assert replica.client().set("plain", "client")
        plain_s = time.monotonic() - elected
        wait_for(lambda: arrives(notifier, taken), timeout_s=60, what="a message through it")
        # A plain connection and command take a few milliseconds; a busy machine delays all alike.
        assert time.monotonic() - elected < RESUMED_S * max(1.0, plain_s / QUICK_S)

        def is_shared() -> bool:
            try:
                return bool(client.set("key", "after"))
            except redis.RedisError:
                return False

        wait_for(is_shared, what="tokens and budgets on the new primary")
        assert replica.client().get("key") == "after"


def test_a_server_that_became_a_replica_is_left(tmp_path: Path, servers: list[RedisServer]) -> None:
    """One name for whoever is primary, as a Service or a cloud's endpoint: connect again."""
    server = start(servers, tmp_path)
    with open_redis(server.url) as client:
        client.set("key", "1")
        old = client.client_id()
        server.client().replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(redis.ConnectionError):
            client.set("key", "2")
        server.client().replicaof("NO", "ONE")

        def is_written() -> bool:
            try:
                return bool(client.set("key", "3"))
            except redis.RedisError:
                return False

        wait_for(is_written, what="the new primary")
        assert client.client_id() != old


def acl_line() -> str:
    """The line of docs/redis.md, as it stands there."""
    text = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
    found = re.search(r"^ACL SETUSER .*$", text, re.MULTILINE)
    assert found is not None
    return found[0].replace("PASSWORD", "secret")


def limit(server: RedisServer, *more: str) -> None:
    """Make the user `mpesa` as the docs do; `more` rules come after theirs."""
    server.client().execute_command(*acl_line().split(), *more)  # type: ignore[no-untyped-call]


def test_the_access_list_of_the_docs_is_enough(
    tmp_path: Path,
    servers: list[RedisServer],
    database_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> None:
    server = start(servers, tmp_path)
    limit(server)
    server.client().acl_log_reset()
    url = server.url.replace("redis://", "redis://mpesa:secret@")

    condition = probe(url)
    with ringing(url) as notifier, reading(with_task(url)) as taken:
        wait_for(lambda: arrives(notifier, taken), what="a message")
    with open_gateway(
        database_url, url, simulator, receiver, redis_is_new="yes", safaricom_push_per_minute="60"
    ) as gateway:
        gateway.pay()

    assert (condition.problems, condition.warnings) == ((), ())
    assert server.client().keys("mpesa:token:*")
    assert server.client().keys("mpesa:budget:*")
    assert server.client().acl_log() == []


def test_what_an_access_list_forbids_is_named(tmp_path: Path, servers: list[RedisServer]) -> None:
    server = start(servers, tmp_path)
    url = server.url.replace("redis://", "redis://mpesa:secret@")
    limit(server, "-lpush", "-evalsha", "-eval", "-info")

    problems = probe(url).problems

    assert len(problems) == 2
    assert "forbids scripts (EVAL" in problems[0]
    assert "forbids LPUSH on huey.redis.mpesa" in problems[1]


def test_problems_are_sentences(tmp_path: Path, servers: list[RedisServer]) -> None:
    locked = start(servers, tmp_path, "requirepass secret")
    full = start(servers, tmp_path, "maxmemory 1", "maxmemory-policy noeviction")
    evicting = start(servers, tmp_path, "maxmemory 100mb", "maxmemory-policy allkeys-lru")
    replica = start(servers, tmp_path, f"replicaof 127.0.0.1 {evicting.port}")
    sentinel = RedisServer(
        tmp_path, f"sentinel monitor {SERVICE} 127.0.0.1 {evicting.port} 1", sentinel=True
    )
    servers.append(sentinel)
    password = locked.url.replace("redis://", "redis://:{}@")

    def problem(url: str) -> str:
        (sentence,) = probe(url).problems
        return sentence

    assert problem(f"redis://127.0.0.1:{free_port()}/0").startswith("the connection is refused")
    assert problem("redis://nowhere.invalid/0") == "nobody knows that host name"
    assert problem(locked.url) == "it asks for a password"
    assert problem(password.format("wrong")) == "it refuses the user or the password"
    assert problem(full.url).endswith("its memory is full")
    assert problem(replica.url).startswith("it is a replica")
    assert problem(evicting.url.replace("/0", "/99")) == "it has no such database number"
    assert problem(f"redis+sentinel://127.0.0.1:{sentinel.port}/other/0").startswith("no Sentinel")
    assert problem(f"redis+sentinel://127.0.0.1:{free_port()}/{SERVICE}").startswith("no Sentinel")
    assert probe(password.format("secret")).problems == ()
    (warning,) = probe(evicting.url).warnings
    assert warning.startswith("maxmemory-policy is allkeys-lru")


def test_a_cluster_is_told_by_its_name(tmp_path: Path, servers: list[RedisServer]) -> None:
    cluster = start(servers, tmp_path, "cluster-enabled yes")
    single = start(servers, tmp_path)

    (problem,) = probe(cluster.url).problems

    assert "Redis Cluster, which is not supported" in problem
    assert is_cluster(cluster.url, timeout_s=1.0)
    assert not is_cluster(single.url, timeout_s=1.0)
    assert not is_cluster(f"redis://127.0.0.1:{free_port()}/0", timeout_s=1.0)


def test_a_redis_that_is_away_is_one_line_and_no_traceback(
    tmp_path: Path, servers: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start(servers, tmp_path)
    with reading(with_task(server.url)) as taken:
        server.kill()
        wait_for(lambda: "Redis is away" in caplog.text, what="the line")
        server.start()
        wait_for(lambda: "Redis is back" in caplog.text, what="the line of its return")
        with ringing(server.url) as notifier:
            wait_for(lambda: arrives(notifier, taken), what="a message")

    assert caplog.text.count("Redis is away; payments go on, found by the sweeper") == 1
    assert "Traceback" not in caplog.text


def test_tls_with_a_private_authority(tmp_path: Path, servers: list[RedisServer]) -> None:
    front = TlsFront(tmp_path, start(servers, tmp_path).port)
    url = f"rediss://127.0.0.1:{front.port}/0"
    trusting = f"{url}?ssl_ca_certs={front.ca}"
    try:
        assert probe(trusting).problems == ()
        with ringing(trusting) as notifier, reading(with_task(trusting)) as taken:
            wait_for(lambda: arrives(notifier, taken), what="a message")
        (problem,) = probe(url).problems
        assert problem.startswith("its TLS certificate is not trusted")
    finally:
        front.stop()

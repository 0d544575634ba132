"""A Postgres or a Redis that will not do: a sentence at start and in `check`, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from commands.conftest import Run
from harness.gateway import Gateway
from harness.pooler import PgBouncer
from harness.redises import RedisServer
from harness.settings import environment
from harness.waiting import wait_for
from mpesa_devkit.processes import free_port
from mpesa_gateway.commands.stores import refuse_unsupported_stores
from mpesa_gateway.errors import GatewayError

NOWHERE = f"redis://127.0.0.1:{free_port()}/0"
ENGINES = {
    "CockroachDB CCL v24.3.1 (x86_64-pc-linux-gnu)": "this is CockroachDB, which is not supported",
    "PostgreSQL 11.2-YB-2024.2.1.0-b0 on x86_64": "this is YugabyteDB, which is not supported",
}


def settings(database_url: str, redis_url: str) -> dict[str, str]:
    return environment(
        database_url=database_url,
        redis_url=redis_url,
        base_url="http://127.0.0.1:1",
        callback_url="http://127.0.0.1:1/callback",
        server_port=str(free_port()),
    )


def problems(run: Run, env: dict[str, str]) -> str:
    """What `check` finds, other than that nobody plays Safaricom here."""
    result = run("check", "--json", env=env)
    assert isinstance(result.exception, SystemExit)
    found = json.loads(result.stdout)["findings"]
    return "\n".join(it["detail"] for it in found if it["state"] == "problem")


def refusal(run: Run, command: str, env: dict[str, str]) -> str:
    """The error that a command ends with; `main` prints it as a sentence (test_main.py)."""
    error = run(command, env=env).exception
    assert isinstance(error, GatewayError)
    return str(error)


def imitate(database_url: str, version: str) -> None:
    """Let Postgres say that it is another engine."""
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA engine")
        function = f"engine.version() RETURNS text LANGUAGE sql RETURN '{version}'"
        conn.execute(f"CREATE FUNCTION {function}".encode())
        conn.execute(f"ALTER DATABASE {name} SET search_path = engine, pg_catalog, public".encode())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, "cluster-enabled yes")
    yield server
    server.kill()


@pytest.mark.parametrize(("version", "words"), ENGINES.items())
def test_another_engine_is_refused_by_its_name(
    version: str, words: str, database_url: str, redis_url: str, run: Run
) -> None:
    imitate(database_url, version)
    env = settings(database_url, redis_url)

    assert words in problems(run, env)
    for command in ("api", "worker", "migrate"):
        assert words in refusal(run, command, env)


def start(gateway: Gateway, database_url: str, caplog: pytest.LogCaptureFixture) -> str:
    """What `api` and `worker` say before they open anything. Before `check`, which logs nothing."""
    caplog.clear()
    refuse_unsupported_stores(replace(gateway.services.config, database_url=database_url))
    return caplog.text


def all_findings(run: Run, env: dict[str, str]) -> str:
    result = run("check", "--json", env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    found = json.loads(result.stdout)["findings"]
    return "\n".join(it["detail"] for it in found)


def test_several_hosts_that_are_all_away_are_each_named(
    gateway: Gateway, redis_url: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = free_port(), free_port()
    url = f"postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/x"

    for said in (start(gateway, url, caplog), problems(run, settings(url, redis_url))):
        assert f"127.0.0.1:{first}: the connection is refused" in said
        assert f"127.0.0.1:{second}: the connection is refused" in said


def test_several_hosts_of_which_one_works_are_fine(
    gateway: Gateway, redis_url: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, name = gateway.database_url.rpartition("@")[2].partition("/")
    url = f"postgresql://postgres@127.0.0.1:{free_port()},{host}/{name}"
    url += "?target_session_attrs=read-write"

    assert start(gateway, url, caplog) == ""
    env = settings(url, redis_url)
    wait_for(lambda: "schema version" in all_findings(run, env), timeout_s=60)


def test_a_server_that_takes_no_writes_is_named(
    gateway: Gateway, redis_url: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    url = gateway.database_url
    name = url.rpartition("/")[2]
    switch = f"ALTER DATABASE {name} {{}} default_transaction_read_only".format
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute((switch("SET") + " = on").encode())
        try:
            started, found = start(gateway, url, caplog), problems(run, settings(url, redis_url))
        finally:
            conn.execute("SET default_transaction_read_only = off")
            conn.execute(switch("RESET").encode())

    assert "the database is read-only" in found
    assert "takes no writes" in started
    assert "target_session_attrs=read-write" in started


@pytest.mark.parametrize(
    ("change", "in_check", "at_start"),
    [
        (
            "DELETE FROM schema_migrations WHERE version > 3",
            "run `mpesa-gateway migrate`",
            "schema is behind",
        ),
        (
            "UPDATE schema_migrations SET version = 9999 WHERE version = 1",
            "schema version 9999 is of a later release",
            "schema is of a later release",
        ),
    ],
)
def test_an_older_and_a_newer_schema_are_named(
    gateway: Gateway,
    redis_url: str,
    run: Run,
    caplog: pytest.LogCaptureFixture,
    change: str,
    in_check: str,
    at_start: str,
) -> None:
    gateway.execute(change)
    url = gateway.database_url

    assert at_start in start(gateway, url, caplog)
    assert in_check in all_findings(run, settings(url, redis_url))


@pytest.mark.parametrize(
    ("mode", "in_check", "at_start"),
    [
        ("transaction", "through a pooler", ""),
        ("statement", "a pooler in statement mode", "a pooler in statement mode"),
    ],
)
def test_a_poolers_url_works_or_is_named(
    gateway: Gateway,
    redis_url: str,
    run: Run,
    caplog: pytest.LogCaptureFixture,
    own_directory: Path,
    mode: str,
    in_check: str,
    at_start: str,
) -> None:
    pooler = PgBouncer(own_directory, gateway.database_url, mode=mode)
    try:
        started = start(gateway, pooler.url, caplog)
        # `check` gives a connection three seconds, and a busy machine may need more.
        env = settings(pooler.url, redis_url)
        wait_for(lambda: in_check in all_findings(run, env), timeout_s=240, what=in_check)
    finally:
        pooler.stop()

    assert at_start in started
    assert bool(at_start) == bool(started)


def test_a_redis_cluster_is_refused_by_its_name(
    database_url: str, cluster: RedisServer, run: Run
) -> None:
    env = settings(database_url, cluster.url)

    assert "MPESA_REDIS_URL: it is a Redis Cluster" in problems(run, env)
    for command in ("api", "worker"):
        assert "MPESA_REDIS_URL names a Redis Cluster" in refusal(run, command, env)


@pytest.mark.parametrize("url", ["http://h:6379/0", "redis://a:1,b:2/0", "redis+cluster://a:1"])
def test_a_wrong_redis_url_is_a_sentence(url: str, database_url: str, run: Run) -> None:
    env = settings(database_url, url)

    assert "MPESA_REDIS_URL" in problems(run, env)
    for command in ("api", "worker"):
        assert "MPESA_REDIS_URL" in refusal(run, command, env)


def test_both_stores_are_looked_at_although_one_url_is_wrong(run: Run) -> None:
    found = problems(run, settings("mysql://x", NOWHERE))
    assert "MPESA_DATABASE_URL must begin with" in found
    assert "MPESA_REDIS_URL: the connection is refused" in found

"""`mpesa-gateway dev` and `trigger` as processes: data is kept, webhooks are forwarded."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from harness.gateway import Gateway
from harness.receiver import Receiver
from harness.settings import environment
from harness.waiting import wait_for
from mpesa_demo.dev import KEYS, place
from mpesa_demo.feed import Feed, forward
from mpesa_devkit.processes import Process, clean_env, free_port
from mpesa_gateway.commands.trigger import DEV_API_KEY
from mpesa_gateway.config import Config
from mpesa_gateway.errors import ConfigError

START_S = 90.0


class Dev:
    """A running `mpesa-gateway dev`."""

    def __init__(self, process: Process, port: int, simulator_port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.simulator_url = f"http://127.0.0.1:{simulator_port}"

    def output(self) -> str:
        return self.process.log.read_text("utf-8")

    def is_ready(self) -> bool:
        return "Ctrl-C stops everything" in self.output()

    def transactions(self) -> list[dict[str, object]]:
        answer = requests.get(
            f"{self.url}/transactions", headers={"X-Internal-Secret": DEV_API_KEY}, timeout=10
        )
        items: list[dict[str, object]] = answer.json()["items"]
        return items

    def trigger(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        addresses = ("--api", self.url, "--simulator", self.simulator_url)
        return subprocess.run(
            [sys.executable, "-m", "mpesa_gateway", "trigger", *arguments, *addresses],
            env=clean_env({}),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )


@contextmanager
def dev(directory: Path, *arguments: str) -> Iterator[Dev]:
    ports = (free_port(), free_port())
    process = Process(
        "mpesa-gateway dev",
        [sys.executable, "-m", "mpesa_gateway", "dev", "--port", str(ports[0]),
         "--simulator-port", str(ports[1]), "--directory", str(directory / "data"), *arguments],
        log=directory / f"dev-{ports[0]}.log",
        env=clean_env({}),
    )  # fmt: skip
    running = Dev(process, *ports)
    try:
        process.wait_until(running.is_ready, START_S)
        yield running
        assert process.stop(signal.SIGINT, 40) == 0, process.tail(40)
    finally:
        process.kill()


@pytest.mark.timeout(300)
def test_a_day_of_a_developer(own_directory: Path) -> None:
    own_directory.chmod(0o755)
    with Receiver() as shop:
        with dev(own_directory, "--forward-to", shop.url) as running:
            paid = running.trigger("paid")
            assert paid.returncode == 0, paid.stdout + paid.stderr
            assert "COMPLETED, receipt" in paid.stdout
            other = running.trigger("cancelled", "--phone", "254799999999", "--amount", "25")
            assert "cancelled" in other.stdout, other.stdout + other.stderr
            wait_for(lambda: len(shop.requests) >= 2, timeout_s=30, what="webhooks forwarded")
            types = {request.verify(KEYS.webhook_secret)["type"] for request in shop.requests}
            assert types == {"transaction.completed", "transaction.failed"}
            shown = running.output()
            for text in (
                DEV_API_KEY,
                KEYS.webhook_secret,
                running.url,
                "webhook transaction.completed",
            ):
                assert text in shown
            ids = {it["transaction_id"] for it in running.transactions()}
            assert len(ids) == 2
        shop.requests.clear()
        with dev(own_directory, "--forward-to", shop.url) as again:
            assert {it["transaction_id"] for it in again.transactions()} == ids, "data is kept"
            assert "webhook transaction" not in again.output().rpartition("Ctrl-C stops")[2]
        assert shop.requests == [], "nothing is forwarded twice"


def test_a_port_in_use_is_a_sentence_that_names_the_option(own_directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "mpesa_gateway", "dev", "--port", str(port),
             "--directory", str(own_directory / "data")],
            env=clean_env({}), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert result.returncode == 1
    assert f"Port {port}" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (own_directory / "data" / "postgres").exists()


def test_trigger_without_a_gateway_says_what_to_start() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    result = subprocess.run(
        [sys.executable, "-m", "mpesa_gateway", "trigger", "paid", "--api", nowhere],
        env=clean_env({}), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert result.returncode == 1
    assert "Is `mpesa-gateway dev` running?" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_endpoint_that_is_away_is_told_and_nothing_raises() -> None:
    assert "did not answer" in forward(f"http://127.0.0.1:{free_port()}/", b"{}", {})
    assert "did not answer" in forward("ftp://127.0.0.1/", b"{}", {})


def test_events_are_said_once(gateway: Gateway) -> None:
    said: list[str] = []
    gateway.pay("254712344042")
    feed = Feed(gateway.pool, KEYS.webhook_secret, None, lambda what, _: said.append(what))
    feed.start()
    feed.look(gateway.clock())
    assert said == [], "what was there before is not new"
    transaction_id = gateway.pay("254712354042")
    feed.look(gateway.clock())
    feed.look(gateway.clock())

    mine = [it for it in said if transaction_id[-8:] in it]
    assert [it.split("  ")[1] for it in mine] == ["caller requested", "push accepted"]
    assert len(said) == len(mine)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands Postgres to another user")
def test_root_keeps_its_data_where_postgres_can_reach_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    found = place(home / "shop" / ".mpesa-gateway-dev")
    try:
        assert not found.is_relative_to(home)
        assert place(home / "shop" / ".mpesa-gateway-dev") == found, "the same at each start"
    finally:
        found.rmdir()


def test_settings_name_where_the_default_merchant_is_told() -> None:
    addresses = {
        "database_url": "postgresql://x",
        "redis_url": "redis://x",
        "base_url": "http://127.0.0.1:1",
        "callback_url": "http://127.0.0.1:1/callback",
    }
    env = environment(**addresses, webhook_url="http://127.0.0.1:3000/hook")
    merchant = Config.from_env(env).default_merchant
    assert merchant is not None
    assert merchant.webhook_url == "http://127.0.0.1:3000/hook"
    with pytest.raises(ConfigError, match="MPESA_WEBHOOK_URL"):
        Config.from_env(environment(**addresses, webhook_url="shop.example"))

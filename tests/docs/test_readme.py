"""The README's commands, pasted: what needs only Python is run as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.gateway import Gateway
from harness.settings import environment
from harness.waiting import wait_for
from mpesa_devkit.processes import Process, clean_env, free_port

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
_BLOCK = re.compile(r"(<!-- not run[^\n]*-->\n)?^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
ENV_FILE = re.compile(r"mpesa-gateway --env-file \.env (\w+)")


def blocks() -> list[str]:
    """Every block of shell that is not excused."""
    return [text for excuse, text in _BLOCK.findall(README) if not excuse]


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[Process]:
    """What `make dev` starts, on free ports: 8080 may be taken on this machine."""
    directory = tmp_path_factory.mktemp("readme")
    directory.chmod(0o755)
    process = Process(
        "mpesa-gateway dev",
        [sys.executable, "-m", "mpesa_gateway", "dev", "--port", str(ports[0]),
         "--simulator-port", str(ports[1]), "--directory", str(directory / "data")],
        log=directory / "dev.log",
        env=clean_env({}),
    )  # fmt: skip
    try:
        process.wait_until(lambda: "Ctrl-C stops everything" in process.log.read_text("utf-8"), 90)
        yield process
    finally:
        process.stop(signal.SIGINT, 40)


def pasted(block: str, port: int) -> Any:
    """What the shell prints for a block; as JSON."""
    script = block.replace("localhost:8080", f"127.0.0.1:{port}")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],  # noqa: S607
        capture_output=True, text=True, timeout=60, check=False, env=clean_env({}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("dev")
@pytest.mark.timeout(240)
def test_the_first_payment_works_when_it_is_pasted(ports: tuple[int, int]) -> None:
    start, initiate, read = blocks()
    assert start == "make dev\n"
    first, again = pasted(initiate, ports[0]), pasted(initiate, ports[0])

    assert first["status"] == "PENDING"
    assert again == first
    paid = wait_for(
        lambda: [it for it in pasted(read, ports[0])["items"] if it["status"] == "COMPLETED"],
        timeout_s=60,
        what="the payment is paid",
    )
    assert [it["transaction_id"] for it in paid] == [first["transaction_id"]]


def test_make_dev_starts_what_the_readme_says() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "dev"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=True, env=clean_env({}),
    )  # fmt: skip

    assert done.stdout.splitlines()[-1].split() == [".venv/bin/mpesa-gateway", "dev"]


def test_every_other_block_says_why_it_is_not_run() -> None:
    fenced = len(re.findall(r"^```sh$", README, re.MULTILINE))

    assert fenced == len(_BLOCK.findall(README))
    assert len(blocks()) == 3


def test_the_plain_processes_find_their_settings_in_a_file(
    gateway: Gateway, tmp_path: Path
) -> None:
    """`cp .env.example .env`, filled in; each command of that block is known."""
    config = gateway.services.config
    values = environment(
        database_url=gateway.database_url,
        redis_url=config.redis_url,
        base_url=gateway.simulator.url,
        callback_url="http://127.0.0.1:1/callback",
    )
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    kept = [it for it in lines if it.split("=")[0] not in values]
    (tmp_path / ".env").write_text(
        "\n".join([*kept, *(f"{name}={shlex.quote(it)}" for name, it in values.items())]), "utf-8"
    )
    commands = ENV_FILE.findall(README)
    assert commands == ["check", "migrate", "api", "worker"]
    for command in ("check", "migrate"):
        done = subprocess.run(
            [sys.executable, "-m", "mpesa_gateway", "--env-file", ".env", command],
            cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False,
            env=clean_env({}),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

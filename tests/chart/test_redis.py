"""The bundled Redis: its start is run as the chart writes it, with a real server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from harness.helm import main_container, render
from harness.redises import program
from harness.waiting import wait_for
from mpesa_devkit.processes import free_port


def command() -> list[str]:
    container = main_container(render(), "redis")
    assert "args" not in container
    return list(container["command"])


def test_no_process_list_shows_the_password() -> None:
    """Kubernetes fills `$(NAME)` in before the process starts; a shell's own variable stays."""
    assert "$(REDIS_PASSWORD)" not in " ".join(command())


@pytest.mark.parametrize("password", ["plain", 'a"b', "a'b", "a\\b", "$HOME `id`", "a b #c"])
def test_the_server_asks_for_the_password_whatever_it_is(password: str, tmp_path: Path) -> None:
    *shell, script = command()
    binaries, port = tmp_path / "bin", free_port()
    binaries.mkdir()
    (binaries / "redis-server").symlink_to(program())
    script = script.replace("dir /data", f"dir {tmp_path}\nport {port}")
    script = script.replace("bind * -::*", "bind 127.0.0.1")
    environ = {"PATH": f"{binaries}:{os.environ['PATH']}", "REDIS_PASSWORD": password}
    with subprocess.Popen([*shell, script], env=environ, stdout=subprocess.DEVNULL) as server:
        try:
            client = redis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0))
            wait_for(lambda: answers(client))
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()
            seen = Path(f"/proc/{server.pid}/cmdline").read_bytes()
            assert b"redis-server" in seen
            assert password.encode() not in seen
            client.close()
        finally:
            server.terminate()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False

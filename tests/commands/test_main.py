"""The console script as a process: errors are sentences on stderr, and exit statuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mpesa_gateway.demo.processes import clean_env


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpesa_gateway", *arguments],
        env=clean_env(env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["api", "worker", "migrate"])
def test_a_wrong_configuration_is_listed_and_exits_with_2(command: str) -> None:
    result = run(command, MPESA_DATABASE_URL="mysql://x")

    assert result.returncode == 2
    assert "MPESA_DATABASE_URL must begin with postgres://" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_of_ours_is_a_sentence_and_exits_with_1() -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/x"
    result = run("migrate", "--timeout", "0s", MPESA_DATABASE_URL=nowhere)

    assert result.returncode == 1
    why = "127.0.0.1:1: the connection is refused: it is not running, or not there"
    assert result.stderr == f"Error: Postgres does not answer ({why})\n"

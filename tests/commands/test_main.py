"""The console script as a process: errors are sentences on stderr, and exit statuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.settings import environment
from mpesa_devkit.processes import clean_env


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


@pytest.mark.parametrize("command", ["api", "worker"])
def test_each_unsafe_setting_and_unknown_variable_is_one_warning_at_start(
    command: str, tmp_path: Path
) -> None:
    """The metrics port is in use, so that the process ends at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = environment(
            database_url="postgresql://postgres@127.0.0.1:1/x",
            redis_url="redis://127.0.0.1:1/0",
            base_url="https://sandbox.safaricom.co.ke",
            callback_url="http://127.0.0.1:8080/callback",
            metrics_port=str(taken.getsockname()[1]),
        )
        env["MPESA_SAFARICOM_PASSKY"] = "canary-of-a-value"
        path = tmp_path / "gateway.env"
        path.write_text("".join(f"{name}='{value}'\n" for name, value in env.items()))
        result = run("--env-file", str(path), command)

    assert result.returncode == 2, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    warned = [
        line["problem"].split(" ")[0]
        for line in lines
        if line["level"] == "warning" and "problem" in line
    ]
    assert Counter(warned) == Counter(
        [
            "MPESA_SAFARICOM_PASSKY",
            "MPESA_CALLBACK_TOKEN_REQUIRED",
            "MPESA_SAFARICOM_CALLBACK_URL",
            "MPESA_SAFARICOM_IPS",
            "MPESA_WEBHOOK_ALLOW_PRIVATE",
            "MPESA_WEBHOOK_SECRET",
        ]
    )
    assert "MPESA_SAFARICOM_PASSKEY was probably meant" in result.stdout
    assert "canary-of-a-value" not in result.stdout + result.stderr


@pytest.mark.parametrize("command", ["api", "check", "migrate", "transactions"])
def test_a_line_of_an_environment_file_that_is_no_setting_exits_with_2(
    command: str, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.env"
    path.write_text("# first\nMPESA_DATABASE_URL=x\nMPESA_REDIS_URL canary\n", encoding="utf-8")
    result = run("--env-file", str(path), command)

    assert result.returncode == 2
    assert " line 3 is no setting" in result.stderr
    assert "canary" not in result.stdout + result.stderr


def test_check_names_the_variable_that_was_meant() -> None:
    result = run("check", "--json", MPESA_DATABSE_URL="canary")

    assert result.returncode == 1
    assert "MPESA_DATABASE_URL was probably meant" in result.stdout
    assert "canary" not in result.stdout + result.stderr

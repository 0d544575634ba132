"""Commands as a person types them: found on the PATH, with a deadline."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 120.0


def run(
    *arguments: str,
    stdin: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """The ended command, whatever its status. `env` comes over this process's own."""
    return subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=timeout_s,
    )


def output(*arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """What the command says. Fails with its complaint."""
    done = run(*arguments, stdin=stdin, timeout_s=timeout_s)
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def succeeds(*arguments: str, timeout_s: float = 30.0) -> bool:
    """Whether the command is there and ends well."""
    try:
        return run(*arguments, timeout_s=timeout_s).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False

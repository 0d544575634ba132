"""A chaos run that is killed with SIGKILL leaves nothing behind, whatever stood still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.hanging import children
from harness.waiting import wait_for
from mpesa_devkit.processes import clean_env
from mpesa_devkit.watchdog import family, read_stat

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

TESTS = Path(__file__).parent.parent
# API, its server, worker, two of each; Postgres and its backends; Redis; Safaricom.
AT_LEAST = 12
GONE_AFTER_KILL_S = 15.0


def test_a_killed_run_leaves_no_process_behind(own_directory: Path) -> None:
    # Postgres has a user of its own, who must get through.
    own_directory.chmod(0o755)
    output = own_directory / "output"
    with output.open("w") as stdout:
        run = subprocess.Popen(
            [sys.executable, "-m", "harness.chaos"],
            cwd=TESTS,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            env=clean_env({"SEED": "1", "CHAOS_MINUTES": "2", "TMPDIR": str(own_directory)}),
        )
    pids: list[int] = []
    try:
        wait_for(lambda: "payments," in output.read_text(), timeout_s=90, what="payments")
        pids = [it for it in family([run.pid]) if it != run.pid]
        assert len(pids) >= AT_LEAST
        for postmaster in [it for it in children(run.pid) if "postgres" in command(it)]:
            # What the nemesis does to it, at the worst moment: they cannot see it die.
            for backend in children(postmaster):
                os.kill(backend, signal.SIGSTOP)
    finally:
        run.kill()
        run.wait()
    wait_for(
        lambda: not [it for it in pids if read_stat(it) is not None],
        timeout_s=GONE_AFTER_KILL_S,
        what="the end of all processes",
    )


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")

"""Whoever starts processes may be killed with SIGKILL: none of them is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.waiting import wait_for
from mpesa_devkit.watchdog import read_stat, running

pytestmark = pytest.mark.skipif(not running(), reason="there is no /proc")

# It starts three, one of them from a thread that ends at once, and prints their ids.
STARTER = """\
import json, sys, threading
from pathlib import Path
from mpesa_devkit.processes import Process

directory = Path(sys.argv[1])
started = []

def start(*command):
    started.append(Process("it", command, log=directory / "log").pid)

start("sleep", "1000")
start("sh", "-c", "setsid sh -c 'echo $$ > grandchild; exec sleep 1000' & trap '' TERM; wait")
thread = threading.Thread(target=start, args=["sleep", "1000"])
thread.start()
thread.join()
print(json.dumps(started), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as popen:
        yield popen
        popen.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_it_started_ends_with_it(
    starter: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    """Also a grandchild that has left the session and stands still, and so cannot notice."""
    assert starter.stdout is not None
    pids: list[int] = json.loads(starter.stdout.readline())
    file = tmp_path / "grandchild"
    grandchild = int(wait_for(lambda: file.exists() and file.read_text(), what="the grandchild"))
    pids.append(grandchild)
    os.kill(grandchild, signal.SIGSTOP)
    assert [it for it in pids if read_stat(it) is None] == []

    starter.send_signal(number)
    assert starter.wait(10) == -number
    wait_for(
        lambda: not [it for it in pids if read_stat(it) is not None],
        timeout_s=10,
        what="their end",
    )


def test_what_it_started_ends_with_it_when_it_ends_well(starter: subprocess.Popen[str]) -> None:
    assert starter.stdin is not None
    assert starter.stdout is not None
    pids: list[int] = json.loads(starter.stdout.readline())
    starter.stdin.close()

    assert starter.wait(10) == 0
    assert [it for it in pids if read_stat(it) is not None] == []

"""Child processes that end with us, whatever happens to us, and free ports for them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mpesa_devkit.watchdog import Watchdog, register

STOP_TIMEOUT_S = 15.0
# Importing everything takes a second; on a machine with ten times the work, many.
START_TIMEOUT_S = 90.0
POLL_S = 0.02
_WATCHDOG = Watchdog()
# The sockets that hold the ports of `free_port`, until this process ends.
_held: list[socket.socket] = []


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses, held for this process as long as it lives.

    It is bound and does not listen. So a server can listen on it, stop and listen again, and the
    kernel gives it meanwhile to no client's connection and to no other `free_port`. The server
    must set SO_REUSEADDR, as all of ours, Postgres, Redis and the servers of Go do.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    port: int = holder.getsockname()[1]
    return port


class Process:
    """A child process with its output in a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        watchdog = _WATCHDOG.start()
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - our own commands
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                preexec_fn=lambda: register(watchdog),  # noqa: PLW1509 - it only writes to a pipe
                user=user,
                group=None if user is None else "nogroup",
                extra_groups=None if user is None else [],
                cwd=log.parent,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._popen.poll()

    def wait_until(self, is_up: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once it is up. Raises RuntimeError with the end of its log when it does not."""
        give_up = time.monotonic() + timeout_s
        while not is_up():
            if not self.is_running() or time.monotonic() > give_up:
                raise RuntimeError(f"{self.name} did not start:\n{self.tail()}")
            time.sleep(POLL_S)

    def tail(self, lines: int = 20) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask it to stop, kill it if it does not; its exit status."""
        self.send(number)
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it at once, as `kill -9` does; its exit status."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        return self._popen.wait()


def answers(port: int) -> bool:
    """Whether something accepts connections on that port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def clean_env(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without MPESA_* variables, and `extra`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MPESA_")}
    return {**inherited, **extra}

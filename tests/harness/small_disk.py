"""A disk of its own for Postgres's files, which can be full: a tmpfs that is made smaller.

It is mounted in a mount namespace of this process, so that it goes away with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from functools import cache
from pathlib import Path

CLONE_NEWNS = 0x00020000
SIZE_BYTES = 1536 * 1024 * 1024


class SmallDisk:
    """The disk, or the reason why this machine cannot have one."""

    def __init__(self, directory: Path) -> None:
        """Call it from the main thread, before other threads: only they see the mount."""
        self._directory = directory
        self.why_not = _why_no_namespace()
        if not self.why_not:
            self.why_not = self._mount("-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs")

    def fill(self) -> bool:
        """No room is left: the disk is as large as what is on it. False when it just grew."""
        found = os.statvfs(self._directory)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return not self._mount("-o", f"remount,size={used}")

    def make_room(self) -> None:
        """As large as it was."""
        problem = self._mount("-o", f"remount,size={SIZE_BYTES}")
        assert not problem, problem

    def close(self) -> None:
        """What was on it is gone."""
        if not self.why_not:
            _run("umount", "--lazy", str(self._directory))

    def _mount(self, *options: str) -> str:
        return _run("mount", *options, str(self._directory))


@cache
def _why_no_namespace() -> str:
    """Move this thread into a mount namespace of its own; why it cannot be had, or nothing."""
    if os.geteuid() != 0:
        return "only root can mount a disk that is full"
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNS) == 0:
            return _run("mount", "--make-rprivate", "/")
    return "this machine has no mount namespaces"


def _run(*command: str) -> str:
    """What it complained of; nothing when it worked."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return done.stderr.strip() or "failed" if done.returncode else ""

"""A directory of small files that survive the process: what Postgres could not take yet.

One file an entry: a line with the format and the SHA-256 of the rest, then the rest. A file is
written under another name, fsynced and renamed, so that a half-written one is never read as whole.
A file that cannot be read is renamed to `.corrupt`, with a warning, and never stops the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

FORMAT = b"mpesa-spool-1"
# As much as the process holds in memory, so that all of it can be taken up again.
MAX_FILES = 2048
MAX_BYTES = 16 * 1024 * 1024
_ENTRY, _UNFINISHED, _CORRUPT = ".entry", ".tmp", ".corrupt"


class Spool:
    """Entries of one kind in a directory. No method raises OSError: a disk may fail, too."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._directory = directory
        self._kind = kind
        # By file name: bytes.
        self._sizes: dict[str, int] = {}

    def put(self, content: bytes) -> str | None:
        """Keep it; its name once it is on the disk, None without room or when the disk fails."""
        content = FORMAT + b" " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        if len(self._sizes) >= MAX_FILES or sum(self._sizes.values()) + len(content) > MAX_BYTES:
            LOGGER.warning("spool is full", kind=self._kind)
            return None
        name = f"{self._kind}-{uuid.uuid4().hex}"
        try:
            self._write(name, content)
        except OSError as error:
            LOGGER.warning("spool cannot be written", kind=self._kind, problem=type(error).__name__)
            return None
        self._sizes[name] = len(content)
        return name

    def _write(self, name: str, content: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._directory / (name + _UNFINISHED)
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.rename(self._directory / (name + _ENTRY))
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def remove(self, name: str) -> None:
        """Forget an entry: it is in Postgres."""
        self._sizes.pop(name, None)
        with contextlib.suppress(OSError):
            (self._directory / (name + _ENTRY)).unlink(missing_ok=True)

    def load(self) -> Iterator[tuple[str, bytes]]:
        """What a process before this one left, the oldest first, within the limits."""
        for path in self._left_behind():
            content = self._read(path)
            if content is None:
                self.quarantine(path.stem)
            elif len(self._sizes) < MAX_FILES:
                self._sizes[path.stem] = path.stat().st_size
                yield path.stem, content

    def quarantine(self, name: str) -> None:
        """Keep an entry that nobody can read under another name."""
        self._sizes.pop(name, None)
        LOGGER.warning("spool entry cannot be read and is quarantined", entry=name)
        with contextlib.suppress(OSError):
            path = self._directory / (name + _ENTRY)
            path.rename(path.with_suffix(_CORRUPT))

    def _left_behind(self) -> list[Path]:
        try:
            for unfinished in self._directory.glob(f"{self._kind}-*{_UNFINISHED}"):
                unfinished.unlink(missing_ok=True)
            found = [
                (path.stat().st_mtime, path)
                for path in self._directory.glob(f"{self._kind}-*{_ENTRY}")
            ]
        except OSError as error:
            LOGGER.warning("spool cannot be read", kind=self._kind, problem=type(error).__name__)
            return []
        return [path for _, path in sorted(found)]

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            if path.stat().st_size > MAX_BYTES:
                return None
            head, newline, content = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        digest = hashlib.sha256(content).hexdigest().encode()
        return content if newline and head == FORMAT + b" " + digest else None

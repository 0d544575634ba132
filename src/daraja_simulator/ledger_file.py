"""A file of lines, each on disk before its writer goes on; writers at once share one fsync."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Waiting:
    line: str
    written: asyncio.Future[None]


class LedgerFile:
    """Appends lines to a file. As many lines wait at most as there are callers of `append`."""

    _descriptor: int

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Raises OSError when the file cannot be opened."""
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def append(self, line: str) -> None:
        """Return when the line is on disk. Raises OSError when it cannot be written."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(line, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_batches())
        await written

    async def close(self) -> None:
        """Write what waits, then close the file."""
        if self._writer is not None:
            await self._writer
        os.close(self._descriptor)

    async def _write_batches(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            text = "".join(f"{each.line}\n" for each in batch)
            problem: OSError | None = None
            try:
                await asyncio.to_thread(self._write, text.encode())
            except OSError as error:
                problem = error
            for each in batch:
                _settle(each.written, problem)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]
        os.fsync(self._descriptor)


def _settle(written: asyncio.Future[None], problem: OSError | None) -> None:
    if written.done():  # Its writer was cancelled.
        return
    if problem is None:
        written.set_result(None)
    else:
        written.set_exception(problem)

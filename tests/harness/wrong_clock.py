"""Wall clocks of processes that are wrong, by a library that is loaded before libc."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class WrongClocks:
    """A clock for each name; right until it is set. Changes are seen at once, without a restart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._library = directory / "wrong_clock.so"
        self.why_not = self._compile()

    def _compile(self) -> str:
        compiler = shutil.which("cc")
        if sys.platform != "linux" or compiler is None:
            return "a C compiler and Linux are needed"
        done = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE, "-ldl"],
            check=False,
            capture_output=True,
            text=True,
        )
        return done.stderr.strip()[:200]

    def env(self, name: str) -> dict[str, str]:
        """What a process needs in its environment to have the clock of that name."""
        if self.why_not:
            return {}
        self.set(name, 0)
        return {"LD_PRELOAD": str(self._library), "WRONG_CLOCK": str(self._file(name))}

    def set(self, name: str, seconds: int) -> None:
        """Wrong by so much from now on; 0 is right."""
        file = self._file(name)
        # Written in place: processes have it mapped.
        with file.open("r+b" if file.exists() else "wb") as opened:
            opened.write(struct.pack("l", seconds))

    def _file(self, name: str) -> Path:
        return self._directory / f"clock-of-{name}"

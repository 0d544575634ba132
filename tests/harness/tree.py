"""A copy of the project, and the commands that people type in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import shell
from harness.docker import ROOT

MAKE_TIMEOUT_S = 300.0


@dataclass
class Tree:
    """The project's files in a directory of their own."""

    path: Path

    def make(
        self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`make` as a person types it."""
        return shell.run(
            "make",
            "--no-print-directory",
            *arguments,
            stdin=stdin,
            cwd=self.path,
            env=env,
            timeout_s=MAKE_TIMEOUT_S,
        )

    def settings(self) -> dict[str, str]:
        """What .env sets."""
        lines = (self.path / ".env").read_text(encoding="utf-8").splitlines()
        pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
        return {name: value for name, _, value in pairs}


def copy_tree(destination: Path) -> Tree:
    """What git knows, and what is new; never an .env of this checkout."""
    listed = shell.run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
    )
    assert listed.returncode == 0, listed.stderr
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, destination / name)
    return Tree(destination)

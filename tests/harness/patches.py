"""The planted bugs of tests/planted: patches whose headers say who must catch them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

FIELDS = ("Bug", "Suffered", "Caught by")


@dataclass(frozen=True)
class Patch:
    """`suffered` is what a user would; `caught_by` is a test's node id."""

    path: Path
    bug: str
    suffered: str
    caught_by: str

    def apply(self, root: Path, *, check: bool = False) -> str:
        """Plant the bug in a copy of the sources, or only see whether it could be; the problem."""
        done = subprocess.run(
            ["git", "apply", *(["--check"] if check else []), str(self.path)],  # noqa: S607
            cwd=root,
            # Whatever repository is around the copy is not meant.
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "GIT_CEILING_DIRECTORIES": str(root.parent),
            },
            check=False,
            capture_output=True,
            text=True,
        )
        return f"no longer applies: {done.stderr.strip()}" if done.returncode else ""


def read_patches(root: Path) -> list[Patch]:
    """Every planted bug, by file name. Raises KeyError when a header lacks a field."""
    return [_read(path) for path in sorted((root / "tests" / "planted").glob("*.patch"))]


def _read(path: Path) -> Patch:
    header = path.read_text(encoding="utf-8").partition("\ndiff --git")[0]
    fields = dict(line.split(": ", 1) for line in header.splitlines() if ": " in line)
    bug, suffered, caught_by = (fields[name] for name in FIELDS)
    return Patch(path, bug, suffered, caught_by)

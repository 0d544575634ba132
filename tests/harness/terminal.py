"""What a command shows on a terminal, and a picture of it."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess

from rich.console import Console
from rich.text import Text

from mpesa_devkit.processes import clean_env

LINES = 60
PATIENCE_S = 600
# Moves of the cursor and erasures, as rich's live tables make them; colours stay in the text.
_MOVE = re.compile(r"\x1b\[(\d*)A|\x1b\[[02]?K|\x1b\[\?\d+[hl]|(\r)|(\n)")


def screen(output: str) -> list[str]:
    """The lines that a terminal shows after that output; each is erased before it changes."""
    lines, row = [""], 0
    at = 0
    for move in _MOVE.finditer(output):
        lines[row] += output[at : move.start()]
        at = move.end()
        if move[0].endswith("A"):
            row = max(0, row - int(move[1] or 1))
        elif move[0].endswith("K"):
            lines[row] = ""
        elif move[3]:
            row += 1
            lines += [""] * (row + 1 - len(lines))
    lines[row] += output[at:]
    return lines


def svg(lines: list[str], title: str, width: int) -> str:
    """The lines as a picture of a terminal, which loads no font from anywhere."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(lines)), soft_wrap=False)
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)


def on_a_terminal(command: list[str], width: int, env: dict[str, str], cwd: str) -> str:
    """What a command prints on a terminal of that width."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(width), "LINES": str(LINES), "TERM": "xterm-256color"}
    subprocess.run(
        ["stty", "cols", str(width), "rows", str(LINES)],  # noqa: S607
        stdin=theirs,
        check=True,
    )
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=clean_env(env | size), cwd=cwd
    ) as process:
        os.close(theirs)
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
        assert process.wait(PATIENCE_S) == 0, b"".join(chunks[-20:])
    os.close(ours)
    return b"".join(chunks).decode("utf-8", "replace")


def _read(terminal: int) -> bytes:
    """The next piece; empty when nobody holds the other end any more."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""

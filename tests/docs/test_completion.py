"""Each line of docs/commands.md that completes commands, run by its own shell.

bash is everywhere. zsh and fish are skipped without, unless MPESA_SNIPPETS=required.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from harness import shell
from harness.snippets import DOCS, program

# What each shell is asked after the line: what it would offer for `tr` and the tab key.
ASKED = {
    "bash": "{line}\nCOMP_WORDS=(mpesa-gateway tr) COMP_CWORD=1\n"
    "_mpesa_gateway_completion mpesa-gateway\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    "complete -p mpesa-gateway",
    # zsh offers only to a terminal; that the function is its command's is what the line is for.
    "zsh": "autoload -Uz compinit; compinit -u -d {directory}/compdump\n{line}\n"
    'print -r -- "$_comps[mpesa-gateway]"\n'
    'COMP_WORDS="mpesa-gateway tr" COMP_CWORD=1 _MPESA_GATEWAY_COMPLETE=zsh_complete mpesa-gateway',
    "fish": "{line}\ncomplete -c mpesa-gateway\ncomplete -C 'mpesa-gateway tr'",
}
PLAIN = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}


@pytest.mark.parametrize("name", ASKED)
def test_the_line_of_the_page_completes_commands(name: str, tmp_path: Path) -> None:
    found = program(name)
    page = (DOCS / "commands.md").read_text("utf-8")
    lines = re.findall(rf"^ +- {name}: `([^`\n]*)`", page, re.MULTILINE)
    assert len(lines) == 1
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    done = shell.run(
        found,
        *PLAIN[name],
        "-c",
        ASKED[name].format(line=lines[0], directory=tmp_path),
        env={"PATH": path, "HOME": str(tmp_path)},
        timeout_s=60,
    )

    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "_mpesa_gateway_completion" in done.stdout
    assert re.search(r"\btransactions\b", done.stdout)
    assert re.search(r"\btrigger\b", done.stdout)

"""The command line as a whole: what is imported, listed, and shown by `--help`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from commands.conftest import Run
from harness import shell
from mpesa_gateway.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
# What takes longest to import; the version and completion need none of it.
HEAVY = ("psycopg", "redis", "requests", "pydantic", "structlog", "falcon", "opentelemetry", "rich")


def all_commands() -> dict[str, click.Command]:
    """Every command that does something, by the words that are typed."""
    found: dict[str, click.Command] = {}

    def walk(words: list[str], command: click.Command) -> None:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                walk([*words, name], child)
        elif not command.hidden:
            found[" ".join(words)] = command

    walk([], cli)
    return found


@pytest.mark.parametrize("arguments", ["'--version'", "'--help'"])
def test_what_is_quick_imports_little(arguments: str) -> None:
    """CPU time depends on the machine; what is imported does not."""
    code = (
        "import sys; from mpesa_gateway.cli import cli;"
        f" cli([{arguments}], standalone_mode=False);"
        f" print(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_completion_imports_little_and_names_the_commands() -> None:
    code = (
        "import os, sys; from mpesa_gateway.cli import cli;"
        " os.environ.update(_X_COMPLETE='bash_complete', COMP_WORDS='x tra', COMP_CWORD='1')\n"
        "try: cli(prog_name='x', complete_var='_X_COMPLETE')\n"
        "except SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["plain,transactions", "[]"]


def test_the_list_says_what_each_command_says_of_itself(run: Run) -> None:
    shown = run("--help", env={}).output
    context = click.Context(cli)
    for name, known in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None, name
        assert command.name == name
        assert known.line in shown, name
    assert set(cli.commands) <= set(COMMANDS)


def test_every_command_has_an_example() -> None:
    missing = [
        words
        for words, it in all_commands().items()
        if "Example: mpesa-gateway" not in (it.help or "")
    ]
    assert missing == []


def test_every_help_can_be_shown(run: Run) -> None:
    for words in all_commands():
        shown = run(*words.split(), "--help", env={})
        assert shown.exit_code == 0, words


def test_each_completion_of_the_docs_is_one_that_the_shell_can_read() -> None:
    """bash reads its own; the others need not be installed, so their scripts are looked at."""
    page = (ROOT / "docs/commands.md").read_text("utf-8")
    shells = set(re.findall(r"_MPESA_GATEWAY_COMPLETE=(\w+)_source mpesa-gateway", page))
    assert shells == {"bash", "zsh", "fish"}
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for name in shells:
        source = {**path, "_MPESA_GATEWAY_COMPLETE": f"{name}_source"}
        said = shell.run("mpesa-gateway", env=source).stdout
        assert "_mpesa_gateway_completion" in said, name
        assert f"{name}_complete" in said
    line = re.search(r'eval "\$\(_MPESA_GATEWAY_COMPLETE=bash_source mpesa-gateway\)"', page)
    assert line
    done = shell.run("bash", "-c", f"{line[0]}; complete -p mpesa-gateway", env=path)
    assert "-F _mpesa_gateway_completion mpesa-gateway" in done.stdout

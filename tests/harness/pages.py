"""Runs the commands on a page of the docs, as a reader pastes them, and compares what they print.

- `sh` is a script; it must end well. `console` shows commands after `$ ` and what each prints.
  `python` is a program, `sql` is sent to Postgres. All blocks of a page share a directory.
- `<!-- not run: why -->` above a block excuses it. Every other language is only shown.
- Stated output is compared line by line. Ids, receipts, times and durations stand for any of their
  kind; an id that the page names is, in the commands after it, the one that was really printed.
  A line of `…` stands for any lines, `…` at the end of a line for the rest of it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from harness.snippets import DOCS
from mpesa_devkit.processes import clean_env

RUN = ("sh", "console", "python", "sql")
TIMEOUT_S = 90
_BLOCK = re.compile(
    r"(?:^ *<!-- not run[^:\n]*: (?P<excuse>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
# What differs from one run to the next. Those of the first group keep their identity.
_NAMED = {
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "short": r"\b[0-9a-f]{8}\b",
    "receipt": r"\b(?=[A-Z]*\d)[A-Z0-9]{10}\b",
    "message": r"\bmsg_[0-9a-zA-Z_-]+",
    "checkout": r"\bws_CO_\w+",
}
_ANY = {
    "instant": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?",
    "day": r"\b\d{4}-\d\d-\d\d\b",
    "clock": r"\b\d\d:\d\d:\d\d\b",
    "length": r"\+?\d+(?:\.\d+)? ?m?s\b",
    "integer": r"\b2\d{13}\b",
}
# On a page a receipt has a digit, so that it is no word; a real one need not have.
_REAL = {"receipt": r"\b[A-Z0-9]{10}\b"}
_PART = re.compile("|".join(f"(?P<{name}>{it})" for name, it in {**_NAMED, **_ANY}.items()))


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    text: str
    excuse: str | None
    line: int


def blocks_of(text: str) -> list[Block]:
    """Every fenced block of a page, in order."""
    return [
        Block(
            it["language"],
            re.sub(f"^{it['indent']}", "", it["text"], flags=re.MULTILINE),
            it["excuse"],
            text.count("\n", 0, it.start()) + 1,
        )
        for it in _BLOCK.finditer(text)
    ]


def steps(console: str) -> list[tuple[str, str]]:
    """The commands of a `console` block, each with the output that the page states."""
    found: list[tuple[str, str]] = []
    continues = False
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), ""))
        else:
            assert found, f"a console block begins with a command: {line}"
            command, output = found[-1]
            found[-1] = (f"{command}\n{line}", "") if continues else (command, f"{output}{line}\n")
        continues = found[-1][1] == "" and line.endswith("\\")
    return found


@dataclass
class Page:
    """One page, run from top to bottom. `places` are addresses of the page and where they are."""

    name: str
    directory: Path
    env: Mapping[str, str]
    places: Mapping[str, str]
    seen: dict[str, str] = field(default_factory=dict)

    def run(self) -> int:
        """Run every block that is not excused, and return how many that were."""
        count = 0
        for block in blocks_of((DOCS / self.name).read_text("utf-8")):
            if block.language in RUN and not block.excuse:
                self._run_block(block)
                count += 1
        return count

    def _run_block(self, block: Block) -> None:
        if block.language == "console":
            for command, stated in steps(block.text):
                printed = self._shell(command, block)
                self.compare(stated, printed, f"{self.name}:{block.line}: $ {command}")
        elif block.language == "sh":
            self._shell(f"set -euo pipefail\n{block.text}", block)
        elif block.language == "python":
            self._program([sys.executable, "-"], block.text, block)
        else:
            with psycopg.connect(self.env["MPESA_DATABASE_URL"]) as connection:
                connection.execute("SET default_transaction_read_only = on")
                connection.execute(self._here(block.text).encode())

    def _shell(self, command: str, block: Block) -> str:
        return self._program(["bash", "-s"], command, block)

    def _program(self, program: list[str], text: str, block: Block) -> str:
        done = subprocess.run(
            program,
            input=self._here(text),
            cwd=self.directory,
            env=clean_env(self.env),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        told = f"{self.name}:{block.line}: {text}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, told
        return done.stdout

    def _here(self, text: str) -> str:
        """A command of the page with what is called otherwise here."""
        named = {**self.places, **self.seen}
        # The longest first: the last characters of an id are a name of their own.
        for stated in sorted(named, key=len, reverse=True):
            text = text.replace(stated, named[stated])
        return text

    def compare(self, stated: str, printed: str, where: str) -> None:
        """Raise AssertionError unless the output is what the page states; remember its ids."""
        for place, real in self.places.items():
            printed = printed.replace(real, place)
        pattern, names = _pattern(stated)
        found = re.fullmatch(pattern, _squeezed(printed))
        assert found, f"{where}\n--- stated\n{stated}--- printed\n{printed}"
        self.seen |= {text: found[group] for text, group in names.items()}


def _squeezed(text: str) -> str:
    """Without what only lays out: widths of columns, blanks at the ends of lines."""
    lines = [re.sub(r"\s+", " ", it).strip() for it in text.splitlines()]
    return "".join(f"{it}\n" for it in lines if it)


def _pattern(stated: str) -> tuple[str, dict[str, str]]:
    """A regular expression for the output, and which text of the page each of its groups is."""
    names: dict[str, str] = {}
    lines = []
    for line in _squeezed(stated).splitlines():
        if line == "…":
            lines.append(r"(?:.*\n)*?")
            continue
        cut = line.endswith("…")
        rest = r".*\n" if cut else r"\n"
        lines.append(_line(line.removesuffix("…"), names) + rest)
    return "".join(lines), names


def _line(line: str, names: dict[str, str]) -> str:
    parts, at = [], 0
    for part in _PART.finditer(line):
        parts.append(re.escape(line[at : part.start()]))
        at = part.end()
        text, kind = part[0], part.lastgroup or ""
        if kind in _ANY:
            parts.append(f"(?:{_ANY[kind]})")
        elif text in names:
            parts.append(f"(?P={names[text]})")
        else:
            names[text] = f"{kind}{len(names)}"
            parts.append(f"(?P<{names[text]}>{_REAL.get(kind, _NAMED[kind])})")
    return "".join([*parts, re.escape(line[at:])])

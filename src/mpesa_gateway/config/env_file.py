"""Environment files: `NAME=value` lines, as `docker run`, Compose and a shell write them.

Nothing is expanded or run. No problem repeats a value, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mpesa_gateway.errors import ConfigError

FILE_SUFFIX = "_FILE"
_SETTING = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)\Z", re.ASCII | re.DOTALL)
# What may follow a closing quote.
_REST = r"\s*(?:#.*)?\Z"
_SINGLE_QUOTED = re.compile(r"'([^']*)'" + _REST)
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"' + _REST)
_COMMENT = re.compile(r"(?:^|\s)#.*\Z")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file. Raises ConfigError with every line that is no setting."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([f"--env-file {path} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"--env-file {path} line {number} is not UTF-8"]) from error
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", content), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            name, value = parse_line(text)
        except ValueError as error:
            problems.append(f"--env-file {path} line {number} {error}")
        else:
            values[name] = value
    if problems:
        raise ConfigError(problems)
    return values


def parse_line(text: str) -> tuple[str, str]:
    """The name and the value of a line without white space around it. Raises ValueError."""
    match = _SETTING.match(text)
    if match is None or "\x00" in text:
        raise ValueError("is no setting: NAME=value is expected")
    return match[1], _unquoted(match[2])


def _unquoted(written: str) -> str:
    if written.startswith("'"):
        match = _SINGLE_QUOTED.match(written)
    elif written.startswith('"'):
        match = _DOUBLE_QUOTED.match(written)
    else:
        return _COMMENT.sub("", written).strip()
    if match is None:
        raise ValueError("is no setting: its quote is not closed, or text follows it")
    if written.startswith("'"):
        return match[1]
    return re.sub(r"\\(.)", lambda it: _ESCAPES.get(it[1], it[1]), match[1])


def merged(environment: Mapping[str, str], file: Mapping[str, str]) -> dict[str, str]:
    """What the file adds to the environment, which wins: over `X` as over `X_FILE`."""
    return {
        name: value
        for name, value in file.items()
        if name not in environment and not environment.get(_sibling(name))
    }


def _sibling(name: str) -> str:
    """`X_FILE` for `X`, and the other way round."""
    return name.removesuffix(FILE_SUFFIX) if name.endswith(FILE_SUFFIX) else name + FILE_SUFFIX

"""Docker as a user has it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import shell

ROOT = Path(__file__).resolve().parents[2]


def gateway_image() -> str:
    """The image under test."""
    return os.environ.get("GATEWAY_IMAGE") or "mpesa-gateway:dev"


def docker(*arguments: str) -> str:
    """What the command says. Fails with its complaint."""
    return shell.output("docker", *arguments)


def answers(*arguments: str) -> bool:
    """Whether the command succeeds."""
    return shell.succeeds("docker", *arguments)


def inspect(*arguments: str) -> Any:
    """The first object that `docker … inspect` describes."""
    return json.loads(docker(*arguments))[0]


def run(*arguments: str, image: str | None = None, command: tuple[str, ...] = ()) -> str:
    """What a container says that runs to its end."""
    return docker("run", "--rm", *arguments, image or gateway_image(), *command)


@contextmanager
def container(*arguments: str, command: tuple[str, ...]) -> Iterator[str]:
    """The id of a container in the background; it is gone afterwards."""
    identifier = docker("run", "--detach", *arguments, gateway_image(), *command)
    try:
        yield identifier
    finally:
        docker("rm", "--force", "--volumes", identifier)

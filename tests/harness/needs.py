"""What a suite needs of the machine. Without it tests are skipped; where it must be, they fail."""

from __future__ import annotations

import os
import shutil

import pytest

from harness import docker

REQUIRED = "MPESA_CLUSTER_TESTS"


def need(present: object, missing: str) -> None:
    """Skip with that sentence when something is not there; fail in CI, which must have it."""
    if present:
        return
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{missing} ({REQUIRED}=required)", pytrace=False)
    pytest.skip(missing)


def need_docker() -> None:
    """Docker, its engine, and the plug-in `compose`."""
    need(shutil.which("docker"), "Docker is not installed")
    need(docker.answers("version"), "the Docker engine does not answer")
    need(docker.answers("compose", "version"), "the plug-in `docker compose` is not installed")


def need_image(image: str) -> None:
    """The gateway's image, built before the tests."""
    need_docker()
    need(docker.answers("image", "inspect", image), f"the image {image} is not built")

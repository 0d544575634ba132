"""`make setup`, and what the targets say where something is missing. No Docker needed."""

from __future__ import annotations

import re
import shutil
import stat
from pathlib import Path

import pytest

from harness.tree import Tree

TARGETS = ("up", "restart", "down", "ps", "logs", "shell-api", "shell-db", "image")
# What the targets run, apart from Docker.
TOOLS = (
    "sh",
    "bash",
    "make",
    "awk",
    "sed",
    "grep",
    "od",
    "tr",
    "head",
    "base64",
    "mv",
    "rm",
    "cat",
    "dirname",
    "git",
)
GENERATED = ("MPESA_INTERNAL_SECRET", "MPESA_WEBHOOK_SECRET", "POSTGRES_PASSWORD", "REDIS_PASSWORD")


@pytest.fixture
def path_without_docker(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("bin")
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (directory / tool).symlink_to(found)
    return str(directory)


def test_setup_writes_a_file_that_only_its_owner_reads(tree: Tree) -> None:
    done = tree.make("setup")

    assert done.returncode == 0, done.stdout
    assert stat.S_IMODE((tree.path / ".env").stat().st_mode) == 0o600
    assert "make up SIMULATOR=1" in done.stdout
    assert "MPESA_SAFARICOM_CONSUMER_KEY" in done.stdout
    assert not [it for it in tree.path.iterdir() if it.name.startswith(".env.n")]


def test_setup_generates_every_secret_and_shows_none(tree: Tree) -> None:
    done = tree.make("setup")
    settings = tree.settings()

    for name in GENERATED:
        assert len(settings[name]) >= 40, name
        assert settings[name] not in done.stdout
    assert len({settings[name] for name in GENERATED}) == len(GENERATED)
    assert settings["MPESA_WEBHOOK_SECRET"].startswith("whsec_")
    assert f":{settings['POSTGRES_PASSWORD']}@localhost:5433/" in settings["MPESA_DATABASE_URL"]
    assert f":{settings['REDIS_PASSWORD']}@localhost:6380/" in settings["MPESA_REDIS_URL"]


def test_setup_keeps_every_variable_of_the_example(tree: Tree) -> None:
    tree.make("setup")

    def names(file: str) -> set[str]:
        text = (tree.path / file).read_text(encoding="utf-8")
        return set(re.findall(r"^(?:# )?(MPESA_[A-Z_]+)=", text, re.MULTILINE))

    assert names(".env") == names(".env.example")


def test_setup_never_touches_a_file_that_is_there(tree: Tree) -> None:
    (tree.path / ".env").write_text("MINE=1\n")
    done = tree.make("setup")

    assert done.returncode == 0
    assert "stays as it is" in done.stdout
    assert (tree.path / ".env").read_text() == "MINE=1\n"


def test_two_setups_have_different_secrets(tree: Tree) -> None:
    tree.make("setup")
    first = tree.settings()
    (tree.path / ".env").unlink()
    tree.make("setup")

    assert not [name for name in GENERATED if first[name] == tree.settings()[name]]


def test_setup_fails_rather_than_leave_a_secret_out(tree: Tree) -> None:
    example = tree.path / ".env.example"
    text = example.read_text(encoding="utf-8")
    example.write_text(text.replace("MPESA_INTERNAL_SECRET", "MPESA_OTHER"), encoding="utf-8")
    done = tree.make("setup")

    assert done.returncode != 0
    assert not (tree.path / ".env").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_without_docker_each_target_says_so(
    tree: Tree, target: str, path_without_docker: str
) -> None:
    tree.make("setup")
    done = tree.make(target, env={"PATH": path_without_docker})

    assert done.returncode != 0
    assert "Docker is needed and was not found" in done.stdout


def test_setup_without_docker_works_and_says_so(tree: Tree, path_without_docker: str) -> None:
    done = tree.make("setup", env={"PATH": path_without_docker})

    assert done.returncode == 0, done.stdout
    assert "Docker was not found" in done.stdout
    assert (tree.path / ".env").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_without_its_engine_each_target_says_so(tree: Tree, target: str, tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("Docker is not installed")
    tree.make("setup")
    done = tree.make(target, env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})

    assert done.returncode != 0
    assert "its engine does not answer" in done.stdout


def test_help_lists_every_target(tree: Tree) -> None:
    targets = re.findall(
        r"^\.PHONY: (\S+)", (tree.path / "compose" / "targets.mk").read_text(), re.MULTILINE
    )
    done = tree.make("help")

    assert {"setup", *TARGETS} < set(targets)
    assert not [target for target in targets if target not in done.stdout]

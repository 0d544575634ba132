"""The steps of a release: what must agree, what is told, and that a failure is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from harness.collecting import every_case

ROOT = Path(__file__).parent.parent.parent
SCRIPT = "scripts/release.py"
COPIED = (SCRIPT, "pyproject.toml", "CHANGELOG.md", "charts/mpesa-gateway/Chart.yaml")
HEADING = "## [0.1.0] - 2026-12-24\n\n### Added\n\n- A thing.\n\n"
DIGEST = f"sha256:{'0a' * 32}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that is ready to be released as 0.1.0."""
    for name in COPIED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changelog = tmp_path / "CHANGELOG.md"
    text = changelog.read_text("utf-8").replace("## [Unreleased]", f"{HEADING}## [0.0.9]", 1)
    changelog.write_text(text, "utf-8")
    return tmp_path


def run(checkout: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, checkout / SCRIPT, *arguments],
        env={"PATH": f"{path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_version_that_everything_agrees_on(checkout: Path) -> None:
    done = run(checkout, "version", "v0.1.0")
    assert (done.returncode, done.stdout) == (0, "0.1.0\n"), done.stderr


@every_case(
    ("name", "old", "new", "words"),
    [
        ("pyproject.toml", 'version = "0.1.0"', 'version = "0.1.1"', "pyproject.toml says 0.1.1"),
        (COPIED[3], "\nversion: 0.1.0", "\nversion: 0.2.0", "Chart.yaml, version says 0.2.0"),
        (COPIED[3], "appVersion: 0.1.0", "appVersion: 0.2.0", "Chart.yaml, appVersion says 0.2.0"),
        (COPIED[3], "gateway:0.1.0", "gateway:0.0.9", "images names no image of 0.1.0"),
        ("CHANGELOG.md", "[0.1.0] - 2026-12-24", "[0.1.0]", "[Unreleased] that heading"),
        ("CHANGELOG.md", "### Added\n\n- A thing.\n", "", "the section of 0.1.0 is empty"),
    ],
)
def test_nothing_is_released_while_something_says_another_version(
    checkout: Path, name: str, old: str, new: str, words: str
) -> None:
    file = checkout / name
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")
    try:
        done = run(checkout, "version", "v0.1.0")
    finally:
        file.write_text(text, "utf-8")
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr


@every_case("tag", ["0.1.0", "v0.1.1", "v0.1.0-rc1", "main"])
def test_a_tag_of_another_form_or_version_is_refused(checkout: Path, tag: str) -> None:
    assert run(checkout, "version", tag).returncode == 1


def test_the_notes_are_that_versions_section_alone(checkout: Path) -> None:
    assert run(checkout, "notes", "0.1.0").stdout == "### Added\n\n- A thing.\n"


@every_case(
    ("said", "status", "digest"),
    [
        (f"Pushed: ghcr.io/x:0.1.0\nDigest: {DIGEST}", 0, DIGEST),
        ("Error: denied", 1, None),
        # Whoever looked at its output alone would sign nothing, and say that all is well.
        (f"Digest: {DIGEST}\nError: the upload was cut off", 1, None),
        ("Pushed, and no digest", 0, None),
    ],
)
def test_a_chart_that_was_not_pushed_is_a_failure(
    checkout: Path, said: str, status: int, digest: str | None
) -> None:
    helm = checkout / "bin" / "helm"
    helm.parent.mkdir(exist_ok=True)
    helm.write_text(f"#!/bin/sh\ncat <<'SAID' >&2\n{said}\nSAID\nexit {status}\n")
    helm.chmod(0o755)
    done = run(checkout, "push", "chart.tgz", "oci://example.com/charts", path=str(helm.parent))
    assert (done.returncode, done.stdout) == ((0, f"{digest}\n") if digest else (1, ""))


@every_case("image", ["", DIGEST, "r/i:1", "r/i@sha256:abc", f"r/i@{DIGEST}0", f"R/i@{DIGEST}"])
def test_what_is_no_image_with_a_digest_is_written_into_no_chart(
    checkout: Path, image: str
) -> None:
    done = run(checkout, "chart", "0.1.0", image)
    assert done.returncode == 1
    assert "is no image with its digest" in done.stderr


@every_case("arguments", [(), ("publish",), ("version",), ("push", "one")])
def test_wrong_usage_shows_the_steps(checkout: Path, arguments: tuple[str, ...]) -> None:
    done = run(checkout, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "scripts/release.py chart" in done.stderr


def test_the_package_holds_what_is_installed_and_nothing_else(tmp_path: Path) -> None:
    """As `make dist` builds it. PyPI never takes the same version twice."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    stem = f"mpesa_gateway-{project['version']}"
    assert {it.name for it in tmp_path.iterdir()} == {f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"}

    names = zipfile.ZipFile(tmp_path / f"{stem}-py3-none-any.whl").namelist()
    migrations = {f"mpesa_gateway/migrations/{it.name}" for it in ROOT.glob("migrations/*.sql")}
    assert migrations
    assert migrations <= set(names)
    packages = {"mpesa_gateway", "daraja_simulator", "mpesa_operator", "mpesa_demo", "mpesa_devkit"}
    assert {it.partition("/")[0] for it in names} == {*packages, f"{stem}.dist-info"}
    with tarfile.open(tmp_path / f"{stem}.tar.gz") as sdist:
        assert f"{stem}/pyproject.toml" in sdist.getnames()

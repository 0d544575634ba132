#!/usr/bin/env python3
"""The steps of a release that are more than a line of shell. Needs Python, and helm for the chart.

    scripts/release.py version v0.1.0             the version, when everything agrees with the tag
    scripts/release.py notes 0.1.0                that version's section of CHANGELOG.md
    scripts/release.py chart 0.1.0 IMAGE@SHA256   dist/mpesa-gateway-0.1.0.tgz, with that image
    scripts/release.py push FILE OCI-ADDRESS      pushes a chart; its digest

What went wrong is one line on stderr and exit status 1. Only the standard library is used: the job
that signs installs nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
IMAGE = re.compile(rf"([a-z0-9][a-z0-9./:_-]*)@({DIGEST.pattern})")
_SECTION = "## ["


class ReleaseError(Exception):
    """Why nothing is released."""


def version(tag: str, root: Path = ROOT) -> str:
    """Return the version that the tag, the package, the chart and the changelog agree on."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = (root / "charts/mpesa-gateway/Chart.yaml").read_text(encoding="utf-8")
    wanted = tag.removeprefix("v")
    if tag == wanted:
        raise ReleaseError(f"{tag}: a tag of a release begins with v, like v0.1.0")
    said = {
        "pyproject.toml": project["version"],
        "Chart.yaml, version": _field(chart, "version"),
        "Chart.yaml, appVersion": _field(chart, "appVersion"),
    }
    for place, found in said.items():
        if found != wanted:
            raise ReleaseError(f"the tag is {tag}, but {place} says {found}")
    if f"mpesa-gateway/mpesa-gateway:{wanted}\n" not in chart:
        raise ReleaseError(f"Chart.yaml: artifacthub.io/images names no image of {wanted}")
    notes(wanted, root)
    return wanted


def notes(wanted: str, root: Path = ROOT) -> str:
    """Return the changelog's section of a version, which has a date and something to say."""
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    form = rf"^## \[{re.escape(wanted)}\] - \d{{4}}-\d\d-\d\d$"
    heading = re.search(form, changelog, re.MULTILINE)
    if heading is None:
        raise ReleaseError(
            f"CHANGELOG.md has no section '## [{wanted}] - YYYY-MM-DD': give what is under"
            " [Unreleased] that heading"
        )
    section = changelog[heading.end() :].partition(f"\n{_SECTION}")[0].strip()
    if not section:
        raise ReleaseError(f"CHANGELOG.md: the section of {wanted} is empty")
    return section


def chart(wanted: str, image: str, root: Path = ROOT, into: Path | None = None) -> Path:
    """Package the chart so that it installs that very image, whatever its tag becomes.

    A fork pushes its image to a registry of its own, so the repository is written, too.
    """
    found = IMAGE.fullmatch(image)
    if found is None:
        raise ReleaseError(f"{image!r} is no image with its digest: NAME@sha256:… is expected")
    into = into or root / "dist"
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "mpesa-gateway"
        shutil.copytree(root / "charts/mpesa-gateway", copy)
        values = copy / "values.yaml"
        text = values.read_text(encoding="utf-8")
        text = _with_image_value(text, "repository", found[1])
        values.write_text(_with_image_value(text, "digest", found[2]), encoding="utf-8")
        _helm("lint", "--strict", str(copy))
        options = ("--version", wanted, "--app-version", wanted, "--destination", str(into))
        _helm("package", *options, str(copy))
    return into / f"mpesa-gateway-{wanted}.tgz"


def push(package: str, address: str) -> str:
    """Push a packaged chart and return its digest."""
    said = _helm("push", package, address)
    found = re.search(rf"^Digest: ({DIGEST.pattern})$", said, re.MULTILINE)
    if found is None:
        raise ReleaseError(f"helm push told no digest: {said.strip()}")
    return found[1]


def _with_image_value(values: str, name: str, value: str) -> str:
    """Return values.yaml with another default of `image.<name>`; comments and the rest stay."""
    text, times = re.subn(
        rf"^(image:\n(?:(?: .*|#.*)?\n)*?  {name}: ).*$",
        rf'\g<1>"{value}"',
        values,
        flags=re.MULTILINE,
    )
    if times != 1:
        raise ReleaseError(f"values.yaml has no image.{name} to write {value} into")
    return text


def _field(text: str, name: str) -> str:
    found = re.search(rf'^{name}: "?([^"\n]*)"?$', text, re.MULTILINE)
    return found[1] if found else "nothing"


def _helm(*arguments: str) -> str:
    """Run helm and return what it said on both streams: `push` tells its digest on either."""
    done = subprocess.run(
        ["helm", *arguments],  # noqa: S607 - the one of whoever releases
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReleaseError(f"helm {arguments[0]} failed: {done.stdout.strip()}")
    return done.stdout


def run(arguments: list[str]) -> str | None:
    """Run one step and return what it says; None where there is no such step."""
    match arguments:
        case ["version", tag]:
            return version(tag)
        case ["notes", wanted]:
            return notes(wanted)
        case ["chart", wanted, image]:
            return str(chart(wanted, image))
        case ["push", package, address]:
            return push(package, address)
    return None


def main(arguments: list[str]) -> int:
    """Run one step and print what it says; the exit status."""
    try:
        said = run(arguments)
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{said}\n") if said else sys.stderr.write(__doc__ or "")
    return 0 if said else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

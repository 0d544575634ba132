"""The chart as a release packages it: it installs the image that was signed, by its digest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from harness import shell
from harness.helm import KUBE_VERSION

ROOT = Path(__file__).parents[2]
IMAGE = f"ghcr.io/a-fork/mpesa-gateway@sha256:{'0a' * 32}"
sys.path.append(str(ROOT / "scripts"))

import release  # noqa: E402 - a script


def images(rendered: str) -> set[str]:
    """The gateway's own images in a rendered chart."""
    return {
        str(container["image"])
        for it in yaml.safe_load_all(rendered)
        if it and it["kind"] in {"Deployment", "Job"}
        for container in it["spec"]["template"]["spec"]["containers"]
        if "mpesa-gateway" in container["image"]
    }


def test_a_packaged_chart_installs_that_image_and_says_its_version(tmp_path: Path) -> None:
    before = (ROOT / "charts/mpesa-gateway/values.yaml").read_bytes()
    package = release.chart("9.8.7", IMAGE, into=tmp_path)
    rendered = shell.output(
        "helm", "template", "gateway", str(package), "--kube-version", KUBE_VERSION
    )
    assert images(rendered) == {IMAGE}
    shown = yaml.safe_load(shell.output("helm", "show", "chart", str(package)))
    assert (shown["version"], shown["appVersion"]) == ("9.8.7", "9.8.7")
    assert (ROOT / "charts/mpesa-gateway/values.yaml").read_bytes() == before


def test_a_chart_that_helm_refuses_is_not_packaged(tmp_path: Path) -> None:
    with pytest.raises(release.ReleaseError, match="helm package failed"):
        release.chart("not a version", IMAGE, into=tmp_path)
    assert list(tmp_path.iterdir()) == []

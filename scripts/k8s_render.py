#!/usr/bin/env python
"""Write k8s/**/gateway.yaml: what `helm template` makes of each values.yaml there.

Run it after a change of the chart: `.venv/bin/python scripts/k8s_render.py`. Needs helm. A test
compares the files with `--check`, which writes nothing and exits 1 with the names of stale ones.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DIRECTORIES = (ROOT / "k8s", ROOT / "k8s" / "production")
NAME = "mpesa-gateway"
KUBE_VERSION = "1.31.0"
HEAD = (
    "# Rendered from charts/mpesa-gateway by scripts/k8s_render.py with the values.yaml in this"
    " directory: do not edit.\n"
)
# True of a release of Helm, not of these files.
HELM_ONLY = ("app.kubernetes.io/managed-by: Helm", "helm.sh/chart: ")


def render(values: Path) -> str:
    """The objects, without those that only `helm test` needs."""
    command = ["helm", "template", NAME, str(ROOT / "charts" / NAME), "--namespace", NAME]
    options = ["--values", str(values), "--kube-version", KUBE_VERSION, "--skip-tests"]
    text = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
    documents = [it for it in text.split("\n---\n") if keep(yaml.safe_load(it))]
    lines = "\n---\n".join(documents).splitlines()
    kept = [line.rstrip() for line in lines if not line.strip().startswith(HELM_ONLY)]
    return HEAD + "\n".join(kept) + "\n"


def keep(document: dict[str, Any] | None) -> bool:
    """Whether the document is an object of the gateway's. Secrets would be values in a file."""
    if document is None:
        return False
    assert document["kind"] != "Secret", document["metadata"]
    labels: dict[str, str] = document["metadata"].get("labels", {})
    # What Helm runs at an uninstall would run at once here.
    hooked = "helm.sh/hook" in document["metadata"].get("annotations", {})
    return labels.get("app.kubernetes.io/component") != "test" and not hooked


def main() -> None:
    """Write the manifests, or compare them with --check."""
    stale = []
    for directory in DIRECTORIES:
        path = directory / "gateway.yaml"
        text = render(directory / "values.yaml")
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv[1:]:
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv[1:] and stale:
        sys.exit(f"stale, run scripts/k8s_render.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()

"""What is shipped is locked, listed and looked up; and a look-up that did not happen is no pass."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.collecting import every_case

ROOT = Path(__file__).parent.parent.parent
LOCKS = sorted(ROOT.glob("locks/requirements*.lock"))
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)


def pins(lock: Path) -> set[tuple[str, str]]:
    return {(normal(name), version) for name, version in _PIN.findall(lock.read_text("utf-8"))}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@every_case("lock", LOCKS, ids=lambda it: it.name)
def test_every_locked_package_has_an_exact_version_and_hashes(lock: Path) -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock.read_text("utf-8").partition("make lock\n")[2])

    assert len(entries) > 30
    for entry in entries:
        assert _PIN.match(entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
        assert "://" not in entry, entry[:80]


@pytest.mark.slow
def test_the_sbom_names_every_locked_package(tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    env = {**os.environ, "BIN": str(Path(sys.executable).parent), "SBOM_FILE": str(file)}
    subprocess.run([ROOT / "scripts" / "sbom"], check=True, env=env, capture_output=True)
    sbom = json.loads(file.read_text("utf-8"))

    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    assert sbom["metadata"]["component"]["name"] == "mpesa-gateway"
    named = {(normal(it["name"]), it["version"]) for it in sbom["components"]}
    assert named == pins(ROOT / "locks/requirements.lock")
    for component in sbom["components"]:
        assert component["purl"].startswith("pkg:pypi/")
        hashes = [it["hashes"] for it in component["externalReferences"] if it.get("hashes")]
        assert hashes, component["name"]


CLEAN = {"name": "requests", "version": "2.0", "vulns": []}
FLAWED = {
    "name": "requests",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": [], "description": ""}],
}
UNKNOWN = {"name": "requests", "skip_reason": "not found"}


@every_case(
    ("packages", "allow", "status", "words"),
    [
        ([CLEAN], False, 0, "no known vulnerability"),
        ([CLEAN, FLAWED], False, 1, "PYSEC-1, fixed in 2.1"),
        ([FLAWED, UNKNOWN], True, 1, "PYSEC-1"),
        ([CLEAN, UNKNOWN], False, 2, "not audited"),
        ([CLEAN, UNKNOWN], True, 0, "not audited"),
        (None, False, 2, "not audited"),
        (None, True, 0, "not audited"),
    ],
)
def test_an_audit_that_could_not_look_is_no_pass(
    tmp_path: Path, packages: list[object] | None, allow: bool, status: int, words: str
) -> None:
    """`None`: pip-audit itself failed."""
    answer = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    (tmp_path / "answer").write_text(answer)
    env = {**os.environ, "PIP_AUDIT": f"sh -c cat<{tmp_path}/answer"}
    env["AUDIT_UNREACHABLE"] = "allow" if allow else ""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == status, done.stdout + done.stderr
    assert words in done.stdout

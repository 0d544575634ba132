"""Each planted bug can still be planted, and the test that must catch it exists.

scripts/planted_suite.py plants them; this is what `make test` sees of a patch that drifts.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from harness.collecting import every_case
from harness.patches import Patch, read_patches

ROOT = Path(__file__).resolve().parents[2]
PATCHES = read_patches(ROOT)
# The issue's own list, and as many more as you like.
BUGS = {
    "ack before commit",
    "enqueue instead of inbox",
    "no sweeper",
    "push again after a time-out",
    "delivered marked before the send",
    "no fencing",
    "query overrides callback",
    "wake-up inside the transaction",
    "signature over re-serialised JSON",
    "left-most X-Forwarded-For",
}
# What a penetration test (F) and reports from the field (FC) found, each fixed as a kind.
FINDINGS = {
    "F1 an answer that kills the worker": (51, 52),
    "F2 another tenant's API key": (31,),
    "F3 a token without the app's secret": (53, 54),
    "F4 production rules that a word switches off": (60, 61, 62, 63),
    "F5 one tenant that takes all threads and look-ups": (40, 41, 74),
    "F6 a short code that is squatted": (32,),
    "FC1 a body that contradicts itself": (68,),
    "FC2 a query's answer about somebody else": (25,),
    "FC3 a new address of Safaricom": (28,),
    "FC4 a callback URL that nobody can call": (64,),
    "FC5 white space in a credential": (29,),
    "FC6 a token that the API gateway calls dead": (54,),
}


def test_all_bugs_that_were_asked_for_are_there() -> None:
    assert {it.bug for it in PATCHES} >= BUGS


@every_case("finding", FINDINGS)
def test_each_finding_has_a_bug_that_brings_it_back(finding: str) -> None:
    assert set(FINDINGS[finding]) <= {int(it.path.name.partition("-")[0]) for it in PATCHES}


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A copy of what can be patched."""
    for room in ("src", "operator", "migrations"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, tmp_path / room, ignore=ignored)
    return tmp_path


@every_case("patch", PATCHES, ids=lambda it: it.path.stem)
def test_a_planted_bug_applies_and_its_catcher_exists(patch: Patch, product: Path) -> None:
    assert patch.apply(product, check=True) == ""
    assert patch.suffered

    file, _, test = patch.caught_by.partition("::")
    functions = {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert test.partition("[")[0] in functions


def test_a_patch_that_drifted_says_so(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()

    assert "no longer applies" in PATCHES[0].apply(tmp_path, check=True)

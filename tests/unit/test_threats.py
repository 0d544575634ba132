"""Each test that docs/security.md names exists, and no row is without one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from harness.attacks import ATTACKS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists() -> None:
    named = NAMED.findall(TEXT)
    assert len(named) > 40
    missing = [file for file, _ in named if not (ROOT / file).exists()]
    missing += [f"{it}::{name}" for it, name in named if name and name not in functions_of(it)]
    assert missing == []


def test_every_attack_of_a_tenant_has_a_row() -> None:
    named = {test for file, test in NAMED.findall(TEXT) if file == "tests/operator/test_tenants.py"}
    harmless = {"takes_another_till_of_the_same_store", "a_restored_secret_is_adopted"}
    attacks = {attack.__name__ for attack in ATTACKS} - harmless
    assert named - {""} == {f"test_{name}" for name in attacks}


def test_every_row_about_a_tenant_names_a_test() -> None:
    section = TEXT.split("## The hostile tenant")[1].split("**What is left.**")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert [row for row in rows if not NAMED.search(row)] == []

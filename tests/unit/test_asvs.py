"""docs/asvs.yaml names what exists: a requirement without a test that runs is no claim."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from harness.collecting import every_case

ROOT = Path(__file__).parent.parent.parent
REQUIREMENTS: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / "docs" / "asvs.yaml").read_text("utf-8")
)["requirements"]
STATUSES = {"met", "reviewed", "installation", "gap", "not applicable"}
# How many requirements of levels 1 and 2 each section of ASVS 5.0.0 has.
SECTIONS = {
    "V1.1": 2,
    "V1.2": 9,
    "V1.3": 11,
    "V1.4": 3,
    "V1.5": 2,
    "V2.1": 3,
    "V2.2": 3,
    "V2.3": 4,
    "V2.4": 1,
    "V4.1": 3,
    "V4.2": 1,
    "V4.3": 2,
    "V4.4": 4,
    "V6.1": 3,
    "V6.2": 12,
    "V6.3": 4,
    "V6.4": 4,
    "V6.5": 5,
    "V6.6": 3,
    "V6.8": 4,
    "V7.1": 3,
    "V7.2": 4,
    "V7.3": 2,
    "V7.4": 5,
    "V7.5": 2,
    "V7.6": 2,
    "V8.1": 2,
    "V8.2": 3,
    "V8.3": 1,
    "V8.4": 1,
    "V9.1": 3,
    "V9.2": 4,
    "V10.1": 2,
    "V10.2": 2,
    "V10.3": 4,
    "V10.4": 11,
    "V10.5": 5,
    "V10.6": 2,
    "V10.7": 3,
    "V11.1": 2,
    "V11.2": 3,
    "V11.3": 3,
    "V11.4": 4,
    "V11.5": 1,
    "V11.6": 1,
    "V12.1": 3,
    "V12.2": 2,
    "V12.3": 4,
    "V13.1": 1,
    "V13.2": 5,
    "V13.3": 2,
    "V13.4": 5,
    "V14.1": 2,
    "V14.2": 4,
    "V14.3": 3,
    "V15.1": 3,
    "V15.2": 3,
    "V15.3": 7,
    "V16.1": 1,
    "V16.2": 5,
    "V16.3": 4,
    "V16.4": 3,
    "V16.5": 3,
}


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(it.name for it in tree.body if isinstance(it, ast.FunctionDef))


def dangling(test: str) -> bool:
    """Whether it names no file, or no test in it. A file alone stands for all its tests."""
    file, _, name = test.partition("::")
    path = ROOT / file
    if not (path.is_file() and path.name.startswith("test_")):
        return True
    return bool(name) and (not name.startswith("test_") or name not in functions(path))


@every_case("requirement", REQUIREMENTS)
def test_a_claim_has_a_test_that_exists_or_a_reason(requirement: str) -> None:
    entry = REQUIREMENTS[requirement]

    assert re.fullmatch(r"V[0-9]+\.[0-9]+\.[0-9]+", requirement)
    assert entry["status"] in STATUSES
    assert entry.keys() <= {"status", "tests", "because"}
    assert [it for it in entry.get("tests", []) if dangling(it)] == []
    assert entry.get("tests") if entry["status"] == "met" else entry["because"]


def test_every_requirement_of_the_chapters_is_there() -> None:
    counted: dict[str, int] = {}
    for requirement in REQUIREMENTS:
        section = requirement.rpartition(".")[0]
        counted[section] = counted.get(section, 0) + 1

    assert counted == SECTIONS


@every_case(
    "test",
    [
        "tests/unit/test_none.py::test_x",
        "tests/unit/test_asvs.py::test_none",
        "tests/unit/test_asvs.py::dangling",
        "src/mpesa_gateway/cli.py",
        "tests/unit",
    ],
)
def test_a_name_of_nothing_is_noticed(test: str) -> None:
    assert dangling(test)


def test_the_table_of_threats_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    named = re.findall(r"`(tests/[^`\s]+)`", text)

    assert len(named) >= 12
    for test in named:
        assert (ROOT / test.partition("::")[0]).exists(), test
        assert not test.partition("::")[2] or not dangling(test), test
    for requirement in set(re.findall(r"\bV[0-9]+\.[0-9]+\.[0-9]+\b", text)):
        assert requirement in REQUIREMENTS, requirement

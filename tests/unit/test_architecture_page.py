"""docs/architecture.md is a map: what it names exists, and what exists at the top is on it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / "src" / "mpesa_gateway"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TREE = re.search(r"```\n(src/mpesa_gateway/\n.*?)```", PAGE, re.DOTALL)
TABLE = re.search(r"\| to change… \| open \|\n\|---\|---\|\n(.*?)\n\n", PAGE, re.DOTALL)
# A generated tree would say nothing of what each room is for; a module of these needs no line.
UNNAMED = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}


def test_the_tree_names_each_room_and_each_loose_module_and_nothing_else() -> None:
    assert TREE is not None
    named = {
        name
        for line in TREE[1].splitlines()[1:]
        if line.startswith("  ") and not line.startswith("    ")
        for name in re.findall(r"(?:^  |  )(\w+(?:/|\.py))", line)
    }
    there = {
        it.name + ("/" if it.is_dir() else "") for it in GATEWAY.iterdir() if it.name not in UNNAMED
    }

    assert named == there
    assert len([it for it in there if it.endswith(".py")]) <= 7, "a crowded top floor"


def test_the_tree_names_each_package_beside_the_gateway() -> None:
    assert TREE is not None
    named = set(re.findall(r"^(\S+/\w+)/ ", TREE[1], re.MULTILINE))
    packages = {f"src/{it.name}" for it in (ROOT / "src").iterdir() if it.name[0] != "."}

    assert packages - {"src/mpesa_gateway"} <= named
    assert [it for it in named if not (ROOT / it).is_dir()] == []


def test_where_to_change_what_names_files_that_exist() -> None:
    assert TABLE is not None
    files = re.findall(r"`([\w/<>]+\.py|migrations/|scripts/\S+)`", TABLE[1])
    missing = [
        it
        for it in files
        if "<" not in it and not ((GATEWAY / it).exists() or (ROOT / it).exists())
    ]

    assert len(files) > 20
    assert missing == []

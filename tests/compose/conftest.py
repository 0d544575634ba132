"""A fresh copy of the project for each test that asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tree import Tree, copy_tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """The project's files, without an .env."""
    return copy_tree(tmp_path)

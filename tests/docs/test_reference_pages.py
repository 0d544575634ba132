"""Pages that list what the code has: every problem, every failure reason."""

from __future__ import annotations

import re
import subprocess
import sys

from harness.snippets import DOCS
from mpesa_gateway.domain.problem_details import TITLES
from mpesa_gateway.domain.results import REASONS


def test_every_problem_type_has_a_heading() -> None:
    headings = re.findall(r"^## (\S+)$", (DOCS / "problems.md").read_text("utf-8"), re.MULTILINE)

    assert sorted(headings) == sorted(TITLES)


def test_every_failure_reason_is_explained_in_both_languages() -> None:
    page = DOCS / "failure-reasons.md"
    before = page.read_text("utf-8")
    script = DOCS.parent / "scripts" / "reasons_docs.py"
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", before, re.MULTILINE))

    assert listed == set(REASONS) - {"paid", "processing"}
    try:
        subprocess.run([sys.executable, str(script)], check=True, timeout=60)
        assert page.read_text("utf-8") == before, "run scripts/reasons_docs.py"
    finally:
        page.write_text(before, "utf-8")

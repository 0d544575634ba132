"""docs/simulator.md lists what the simulator does, row by row."""

from __future__ import annotations

import re
from pathlib import Path

from daraja_simulator.outcomes import OUTCOMES

DOCS = Path(__file__).resolve().parents[2] / "docs" / "simulator.md"


def test_every_outcome_is_in_the_docs_as_it_is_in_the_table() -> None:
    rows = re.findall(
        r"^\| `(\d{4})` \| `(\w+)` \| (.*) \|$", DOCS.read_text("utf-8"), re.MULTILINE
    )
    assert rows == [(it.digits, it.name, it.what) for it in OUTCOMES]

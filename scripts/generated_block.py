"""The part of a page that a script writes: between two comments, and nothing else of the page."""

from __future__ import annotations

import re
from pathlib import Path


def write_block(page: Path, begin: str, end: str, content: str) -> None:
    """Replace what stands between the comments `begin` and `end`."""
    text = page.read_text(encoding="utf-8")
    block = f"{begin}\n{content}\n{end}"
    new = re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)
    page.write_text(new, encoding="utf-8")

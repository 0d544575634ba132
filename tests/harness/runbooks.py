"""What the runbooks and the page of alerts tell a person to type."""

from __future__ import annotations

import re

from harness.alerts import ROOT

RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
ALERTS_PAGE = ROOT / "docs" / "alerts.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = ("mpesa-gateway", "kubectl", "helm")


def blocks(language: str) -> list[tuple[str, str]]:
    """Every fenced block of that language, with the page it stands on."""
    return [
        (path.stem, text)
        for path in [*RUNBOOKS, ALERTS_PAGE]
        for found, text in _BLOCK.findall(path.read_text("utf-8"))
        if found == language
    ]


def lines() -> list[tuple[str, str]]:
    """Every line of shell, with its page. A `#` begins a remark."""
    return [
        (page, line)
        for page, text in blocks("sh")
        for line in text.splitlines()
        if line.strip() and not line.startswith("#")
    ]


def commands(*programs: str) -> list[str]:
    """The different lines that begin with one of these programs."""
    return sorted({line for _, line in lines() if line.split(" ")[0] in programs})

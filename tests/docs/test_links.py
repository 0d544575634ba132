"""Every link in every page of the repository leads to a file and a heading that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_FENCED = re.compile(r"^(```+).*?^\1", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def pages() -> list[Path]:
    """The pages that git knows, or will know."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return [ROOT / it for it in listed if (ROOT / it).exists()]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = _HEADING.findall(_FENCED.sub("", text))
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", it) for it in headings]
    return {re.sub(r"[^\w\- ]", "", it.lower()).strip().replace(" ", "-") for it in plain}


def broken_links(page: Path, text: str) -> list[str]:
    """The page's links to what is not there."""
    found = []
    for path, anchor in _LINK.findall(_CODE.sub("", _FENCED.sub("", text))):
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists()
        if is_there and anchor and target.suffix == ".md":
            is_there = anchor in anchors(text if target == page else target.read_text("utf-8"))
        if not is_there:
            found.append(f"{page.relative_to(ROOT)}: {path}#{anchor}")
    return found


def test_every_link_leads_somewhere() -> None:
    found = [it for page in pages() for it in broken_links(page, page.read_text("utf-8"))]

    assert found == []


def test_every_page_is_in_the_sites_navigation_and_on_the_first_page() -> None:
    docs = {it.name for it in (ROOT / "docs").glob("*.md")}
    navigation = re.findall(
        r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE
    )
    first = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "README.md").read_text("utf-8"))

    assert sorted(navigation) == sorted(docs)
    assert docs - {"README.md"} - set(first) == set()


@pytest.mark.parametrize(
    "link",
    ["(nowhere.md)", "(api.md#no-such-heading)", "(../NOWHERE.md)", "(#nowhere)", "(no.png)"],
)
def test_a_broken_link_is_found(link: str) -> None:
    page = ROOT / "docs" / "webhooks.md"
    text = page.read_text("utf-8")

    assert len(broken_links(page, f"{text}\nSee [this]{link}.\n")) == 1

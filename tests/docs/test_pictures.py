"""The pictures of terminals: what they show, and that they load nothing from elsewhere."""

from __future__ import annotations

import re
import sys

import pytest

from harness.snippets import DOCS
from harness.terminal import on_a_terminal, screen, svg

ELSEWHERE = re.compile(r"""(?:href|src)=["'](?!#)|url\((?!["']?#)|@import|@font-face""")
LIVE = """
import time
from rich.live import Live
from rich.table import Table
from rich.console import Console

with Live(console=Console(), refresh_per_second=50) as live:
    for rows in (1, 3, 2):
        table = Table("payment")
        for number in range(rows):
            table.add_row(f"{rows}-{number}")
        live.update(table, refresh=True)
print("done")
"""


def test_a_screen_is_what_is_left_of_a_live_table() -> None:
    shown = screen(on_a_terminal([sys.executable, "-c", LIVE], 80, {}, "."))

    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(shown))
    assert re.findall(r"\d-\d", text) == ["2-0", "2-1"]
    assert text.rstrip().endswith("done")


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ("a\r\nb", ["a", "b"]),
        ("a\nb\n\x1b[2A\x1b[2Kc\n", ["c", "b", ""]),
        ("\x1b[?25la\x1b[?25h", ["a"]),
        ("\x1b[9Aa", ["a"]),
    ],
)
def test_moves_of_the_cursor(output: str, lines: list[str]) -> None:
    assert screen(output) == lines


def test_a_picture_has_the_text_and_loads_no_font() -> None:
    picture = svg(["one \x1b[32mtwo\x1b[0m"], "a title", 40)

    assert all(word in picture for word in ("one", "two", "a&#160;title"))
    assert ELSEWHERE.findall(picture) == []


def test_the_pictures_are_on_a_page_and_load_nothing() -> None:
    pages = "".join(it.read_text("utf-8") for it in DOCS.rglob("*.md"))
    pictures = [*(DOCS / "img").iterdir()]

    assert [it.name for it in pictures if f"img/{it.name}" not in pages] == []
    drawn = [it for it in pictures if it.suffix == ".svg"]
    assert len(drawn) == 2
    assert [it.name for it in drawn if ELSEWHERE.search(it.read_text("utf-8"))] == []

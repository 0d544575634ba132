#!/usr/bin/env python3
"""Writes the table in docs/failure-reasons.md from `mpesa_gateway.domain.results`.

Run it after a reason has changed: `.venv/bin/python scripts/reasons_docs.py`. A test compares them.
"""

from __future__ import annotations

from pathlib import Path

from generated_block import write_block
from mpesa_gateway.domain.results import (
    CATALOGUE,
    PUSH_REASONS,
    RESOLVED_FAILED,
    ResultMeaning,
    meaning_of,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "failure-reasons.md"
BEGIN, END = "<!-- reasons: begin -->", "<!-- reasons: end -->"


def meanings() -> dict[str, list[ResultMeaning]]:
    """Every reason word with the codes that have it; success is no failure."""
    known = [*CATALOGUE.values(), *PUSH_REASONS.values(), RESOLVED_FAILED, meaning_of("?")]
    found: dict[str, list[ResultMeaning]] = {}
    for meaning in known:
        if meaning.reason not in ("paid", "processing"):
            found.setdefault(meaning.reason, []).append(meaning)
    return dict(sorted(found.items()))


def row(reason: str, of: list[ResultMeaning]) -> str:
    """A line of the table. Codes of one reason share their sentences, or the first one's stand."""
    codes = [it.code for it in of if it.code not in ("", "?")]
    listed = ", ".join(f"`{it}`" for it in codes[:4]) + (" …" if len(codes) > 4 else "")
    first = of[0]
    again = "yes" if first.customer_may_retry else "no"
    return f"| `{reason}` | {listed} | {first.cause or ''} | {again} | {first.en} | {first.sw} |"


def table() -> str:
    """The whole table."""
    head = "| reason | codes | whose doing | may try again | English | Swahili |"
    rows = [row(reason, of) for reason, of in meanings().items()]
    return "\n".join([head, "|---" * 6 + "|", *rows])


def main() -> None:
    """Write the table into the page."""
    write_block(PAGE, BEGIN, END, table())


if __name__ == "__main__":
    main()

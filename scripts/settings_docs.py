#!/usr/bin/env python3
"""Writes the table in docs/configuration.md and .env.example from `mpesa_gateway.config.settings`.

Run it after a setting has changed: `.venv/bin/python scripts/settings_docs.py`.
A test compares them.
"""

from __future__ import annotations

from pathlib import Path

from generated_block import write_block
from mpesa_gateway.config.settings import PREFIX, SETTINGS, Setting

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def row(setting: Setting) -> str:
    """A line of the table."""
    default = (
        "required"
        if setting.default is None
        else f"`{setting.default}`"
        if setting.default
        else "empty"
    )
    file = f" Also as `{PREFIX}{setting.name}_FILE`." if setting.secret else ""
    return f"| `{PREFIX}{setting.name}` | {default} | {setting.meaning}{file} |"


def example(setting: Setting) -> str:
    """A paragraph of .env.example."""
    name = PREFIX + setting.name
    if setting.example:
        return f"# {setting.meaning}\n{name}={setting.example}\n"
    return f"# {setting.meaning}\n# {name}={setting.default}\n"


def main() -> None:
    """Write the page and `.env.example`."""
    table = "\n".join(["| variable | default | meaning |", "|---|---|---|", *map(row, SETTINGS)])
    write_block(ROOT / "docs" / "configuration.md", BEGIN, END, table)
    head = (
        "# Copy to .env and fill in. Every variable, its default and its meaning:\n"
        "# docs/configuration.md. Each secret may come from a file instead: MPESA_…_FILE=/path.\n\n"
    )
    (ROOT / ".env.example").write_text(head + "\n".join(map(example, SETTINGS)), encoding="utf-8")


if __name__ == "__main__":
    main()

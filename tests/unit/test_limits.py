"""Every limit of the source is in the table of docs/security.md, with its value."""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def script() -> ModuleType:
    loader = SourceFileLoader("limits_docs", str(ROOT / "scripts" / "limits_docs.py"))
    spec = importlib.util.spec_from_loader("limits_docs", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_table_is_what_the_source_says() -> None:
    module = script()
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    shown = page.partition(module.BEGIN)[2].partition(module.END)[0].strip()

    assert shown == module.table(), "run scripts/limits_docs.py"


def test_the_limits_that_the_threats_name_are_found() -> None:
    names = {name for _, name, _, _ in script().limits()}

    assert names >= {
        "CALLBACK_LIMIT",
        "KEPT_PLACES",
        "MAX_CONNECTIONS",
        "MAX_PER_ADDRESS",
        "MAX_READING_BYTES",
        "RENDER_THREADS",
        "UNJUDGED_LIMIT",
        "UNMATCHED_PER_MINUTE",
    }

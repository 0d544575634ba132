"""What `make docs` does to the pages on their way to the site (mkdocs.yml names this file).

On GitHub a page links to files beside docs/, and a folder lists itself. On the site neither is
there: such links lead to the repository, and a folder in the navigation stands for its pages.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

REPOSITORY = "https://github.com/mpesa-gateway/mpesa-gateway"
ROOT = Path(__file__).resolve().parents[1]
# A warning of this logger ends a strict build.
log = logging.getLogger("mkdocs.hooks.site")
# A link that leaves its folder upwards, or that leads to a folder.
_LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]*|[\w./-]+/)(#[^)\s]*)?\)")
# Readers are sent to these pages one at a time; a search lists them after the others.
_LAST_FOUND = {"decisions": 0.3, "runbooks": 0.5}
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Put the pages of a folder in the place of `folder/*`."""
    config.nav = [_expanded(it, Path(config.docs_dir)) for it in config.nav]
    return config


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Let a link that leaves docs/ lead to the repository, one to a folder to its first page."""
    boost = _LAST_FOUND.get(page.file.src_uri.partition("/")[0])
    if boost is not None:
        page.meta["search"] = {"boost": boost}
    source = Path(page.file.abs_src_path)
    return _LINK.sub(lambda link: _rewritten(link, source), markdown)


def _expanded(item: Any, docs: Path) -> Any:
    if isinstance(item, list):
        return [_expanded(it, docs) for it in item]
    if isinstance(item, dict):
        return {title: _expanded(it, docs) for title, it in item.items()}
    if not item.endswith("/*"):
        return item
    pages = sorted((docs / item.removesuffix("/*")).glob("*.md"))
    return [{_title(it): str(it.relative_to(docs))} for it in pages]


def _title(page: Path) -> str:
    found = _TITLE.search(page.read_text("utf-8"))
    return found[1] if found else page.stem


def _rewritten(link: re.Match[str], source: Path) -> str:
    target = Path(os.path.normpath(source.parent / link[1]))
    if target.is_relative_to(ROOT / "docs"):
        first = min(target.glob("*.md"), default=None) if target.is_dir() else None
        return f"]({os.path.relpath(first, source.parent)})" if first else link[0]
    if not target.exists():
        log.warning("%s links to %s, which is not there", source.relative_to(ROOT), link[1])
    kind = "tree" if target.is_dir() else "blob"
    return f"]({REPOSITORY}/{kind}/main/{target.relative_to(ROOT)}{link[2] or ''})"

"""Every command and snippet in README and docs is run by a test, or says above it why not.

A block of shell, of a console, of SQL or of a language counts, and so does one without a language
in which a line begins with a program. `<!-- not run: why -->` above it excuses it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from docs import test_pages
from harness.pages import RUN, Block, blocks_of

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
LANGUAGES = {*RUN, "bash", "shell", "javascript", "php", "java", "go", "typescript"}
_PROGRAM = re.compile(
    r"^(?:\$ )?(?:[A-Z_]+=\S* )*(?:bash|cd|cosign|cp|curl|docker|git|go|helm|java|k8s/make-secrets"
    r"|kind|kubectl|make|mpesa-gateway|node|npm|pg_dump|php|pip|printf|psql|python3?|redis-cli"
    r"|sed) ",
    re.MULTILINE,
)


class Runner(NamedTuple):
    """The test that runs the blocks of some pages, those of these languages only."""

    pages: str
    languages: frozenset[str]
    test: str


def runner(pages: str, languages: str, test: str) -> Runner:
    return Runner(pages, frozenset(languages.split()), test)


RUNNERS = [
    runner(r"README\.md", "sh",
           "docs/test_readme.py::test_the_first_payment_works_when_it_is_pasted"),
    runner(r"docs/commands\.md", " ".join(RUN),
           "commands/test_commands_page.py::test_the_page_of_commands_works_when_it_is_pasted"),
    runner(r"docs/(runbooks/.*|alerts\.md)", "sh",
           "commands/test_runbook_commands.py::test_a_command_of_a_runbook_works"),
    runner(r"docs/runbooks/.*", "sql",
           "commands/test_runbook_commands.py::test_sql_of_a_runbook_works"),
    runner(r"docs/recovery\.md", "sh",
           "commands/test_recovery_page.py::test_the_commands_of_the_page_restore_a_database"),
    runner(r"docs/webhooks\.md", "python javascript php java go",
           "docs/test_webhook_snippets.py::"
           "test_the_snippet_tells_genuine_webhooks_from_forged_ones"),
    *(runner(re.escape(f"docs/{name}"), " ".join(RUN),
             "docs/test_pages.py::test_the_page_works_when_it_is_pasted")
      for name, count in test_pages.PAGES.items() if count),
]  # fmt: skip


def pages() -> list[Path]:
    """Whatever a reader may copy from."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    for pattern in ("docs/**/*.md", "charts/*/README.md", "examples/**/README.md", "k8s/**/*.md"):
        found += ROOT.glob(pattern)
    return sorted(set(found))


def is_to_be_run(block: Block) -> bool:
    if block.language in LANGUAGES:
        return True
    return block.language in ("", "text") and bool(_PROGRAM.search(block.text))


def find_runner(page: str, block: Block) -> Runner | None:
    return next(
        (it for it in RUNNERS if re.fullmatch(it.pages, page) and block.language in it.languages),
        None,
    )


def test_every_block_is_run_by_a_test_or_says_why_not() -> None:
    missed = [
        f"{page}:{block.line}: {block.text.splitlines()[0]}"
        for path in pages()
        for page in [path.relative_to(ROOT).as_posix()]
        for block in blocks_of(path.read_text("utf-8"))
        if is_to_be_run(block) and not block.excuse and find_runner(page, block) is None
    ]

    assert missed == [], "\n".join(missed)


def test_every_named_test_is_there() -> None:
    for it in RUNNERS:
        file, _, name = it.test.partition("::")
        text = (TESTS / file).read_text("utf-8")
        assert f"def {name}(" in text, it


def test_an_excuse_is_a_reason() -> None:
    for path in pages():
        for block in blocks_of(path.read_text("utf-8")):
            assert block.excuse is None or len(block.excuse) > 15, (path, block.line)

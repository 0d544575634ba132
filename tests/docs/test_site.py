"""`make docs`: a strict build, and the site in a real browser. Run by `make test-snippets`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from harness.browser import Browser, browser

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("mkdocs.yml", "docs", "scripts", "README.md", "CHANGELOG.md", "SECURITY.md")
# What the search shows, once it has found something.
FOUND = """
[...document.querySelectorAll(".md-search-result__link")]
  .map((it) => [it.getAttribute("href"), it.innerText])
"""
# Words that people type, and a page that must be among those found first.
SEARCHES = {
    "duplicate": "webhooks",
    "match the books": "reconciliation",
    "refund": "faq",
    "customer has paid, order pending": "faq",
    "test phone number": "testing",
    "django": "from-django-daraja",
    "sandbox": "go-live",
    "wrong_pin": "failure-reasons",
    "MPESA_WEBHOOK_RETRY_SCHEDULE": "configuration",
    "halitoshi": "failure-reasons",
}
AMONG = 5

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        importlib.util.find_spec("mkdocs") is None
        and os.environ.get("MPESA_SNIPPETS") != "required",
        reason="mkdocs is not installed: make test-snippets",
    ),
]


def build(root: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs: with `--quiet`, for one, mkdocs counts no warnings."""
    (command,) = re.findall(r"\$\(BIN\)/mkdocs (.*)\n", (ROOT / "Makefile").read_text("utf-8"))
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", *command.split(), "--site-dir", str(into)],
        cwd=root, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site") / "site"
    done = build(ROOT, into)
    assert done.returncode == 0, done.stderr
    return into


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """The site as a web server gives it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {
        it.relative_to(ROOT / "docs").with_suffix(".html") for it in (ROOT / "docs").rglob("*.md")
    }
    missing = [str(it) for it in pages if not (site / it).exists() and it.name != "README.html"]

    assert missing == []
    assert (site / "index.html").exists()


@pytest.mark.parametrize("words", SEARCHES)
def test_search_finds_what_people_type(words: str, url: str, chromium: Browser) -> None:
    visit = chromium.visit(f"{url}/index.html?q={quote(words)}", FOUND)

    pages = dict.fromkeys(urlsplit(href).path.rpartition("/")[2] for href, _ in visit.value)
    assert f"{SEARCHES[words]}.html" in list(pages)[:AMONG]
    assert visit.errors == []


def test_no_page_requests_anything_from_another_host(
    site: Path, url: str, chromium: Browser
) -> None:
    elsewhere, errors, count = [], [], 0
    for page in sorted(site.glob("*.html")):
        visit = chromium.visit(f"{url}/{page.name}", "document.readyState === 'complete'")
        elsewhere += [it for it in visit.requests if not it.startswith((url, "data:", "blob:"))]
        errors += visit.errors
        count += len(visit.requests)

    assert (elsewhere, errors) == ([], [])
    assert count > 100, "the browser told what it requested"


@pytest.mark.parametrize(
    "broken",
    [
        "[gone](nowhere.md)",
        "[gone](api.md#no-such-heading)",
        "[gone](../NOWHERE.md)",
        "![](no.png)",
    ],
)
def test_a_broken_link_fails_the_build(broken: str, tmp_path: Path) -> None:
    for name in PAGES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for name in ("charts", "k8s", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    page = tmp_path / "docs" / "compose.md"
    page.write_text(page.read_text("utf-8") + f"\n{broken}\n", "utf-8")

    done = build(tmp_path, tmp_path / "site")

    assert done.returncode != 0
    (warning,) = [it for it in done.stderr.splitlines() if it.startswith("WARNING")]
    assert "compose.md" in warning

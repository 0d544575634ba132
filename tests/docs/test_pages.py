"""The pages' commands, pasted from top to bottom against `mpesa-gateway dev`; what they print."""

from __future__ import annotations

import os
import re
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from daraja_simulator.outcomes import BY_NAME
from harness.dev_stack import DevStack
from harness.pages import RUN, Page, blocks_of, steps
from harness.snippets import DOCS
from harness.waiting import wait_for
from mpesa_demo.dev import KEYS
from mpesa_devkit.processes import free_port

# How many blocks of each are run.
PAGES = {
    "api.md": 1,
    "testing.md": 7,
    "reconciliation.md": 9,
    "go-live.md": 2,
    "from-hand-written.md": 1,
    "from-django-daraja.md": 0,
    "faq.md": 0,
}
_ROW = re.compile(
    r"^\| `(\w+)` \| `(\d{4})` \| (\d{3}) \| (\w+)(?: `(\w+)`)? \| .+ \|$", re.MULTILINE
)

pytestmark = pytest.mark.timeout(600)


def page(name: str, dev: DevStack, directory: Path) -> Page:
    """The page beside a running stack, with the commands of this checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    trigger = f"mpesa-gateway trigger --api {dev.url} --simulator {dev.simulator_url}"
    return Page(
        name,
        directory,
        env={
            "PATH": path,
            "MPESA_DATABASE_URL": dev.database_url,
            "MPESA_REDIS_URL": dev.redis_url,
        },
        places={
            "mpesa-gateway trigger": trigger,
            "http://localhost:8080": dev.url,
            "http://localhost:8090": dev.simulator_url,
            "postgresql://mpesa:mpesa@localhost:5433/mpesa_gateway": dev.database_url,
            "redis://localhost:6380/0": dev.redis_url,
            "https://sandbox.safaricom.co.ke": dev.simulator_url,
            "YOUR_CONSUMER_KEY": KEYS.consumer_key,
            "YOUR_CONSUMER_SECRET": KEYS.consumer_secret,
            "YOUR_PASSKEY": KEYS.passkey,
            "18080": str(free_port()),
            "18090": str(free_port()),
        },
    )


@pytest.mark.parametrize("name", PAGES)
def test_the_page_works_when_it_is_pasted(name: str, dev: DevStack, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    assert page(name, dev, tmp_path).run() == PAGES[name]


def test_each_outcome_of_the_table_ends_as_it_says(dev: DevStack) -> None:
    rows = _ROW.findall((DOCS / "testing.md").read_text("utf-8"))
    assert len(rows) >= 15
    with ThreadPoolExecutor(4) as several:
        wrong = [it for it in several.map(lambda row: difference(dev, row), rows) if it]

    assert wrong == []


def difference(dev: DevStack, row: tuple[str, str, str, str, str]) -> str | None:
    """What became of such a payment, where that is not what the row says."""
    name, digits, answer, status, reason = row
    headers = {"X-Internal-Secret": dev.api_key}
    body = {"amount": "10", "phone": f"25471357{digits}", "idempotency_key": str(uuid.uuid4())}
    made = requests.post(f"{dev.url}/initiate", json=body, headers=headers, timeout=60)
    url = f"{dev.url}/transactions/{made.json()['transaction_id']}"

    def ended() -> Any:
        view = requests.get(url, headers=headers, timeout=30).json()
        is_open = view["status"] == "PENDING" and not view["attention"]
        return None if is_open and status != "PENDING" else view

    view = wait_for(ended, timeout_s=90, what=name)
    reasons = (view["failure"] or {}).get("reason", "")
    found = (BY_NAME[name].digits, str(made.status_code), view["status"], reasons)
    return None if found == (digits, answer, status, reason) else f"{name}: {found}"


def test_a_page_that_states_something_else_is_found(dev: DevStack, tmp_path: Path) -> None:
    pasted = page("testing.md", dev, tmp_path)
    said = "Payment 01a22f66-b745-741e-b234-9ea69a556b4e of 10 KES.\nIt has FAILED.\n"

    pasted.compare("Payment 00000000-0000-4000-8000-000000000000 of 10 KES.\n…\n", said, "here")
    assert pasted.seen == {
        "00000000-0000-4000-8000-000000000000": "01a22f66-b745-741e-b234-9ea69a556b4e"
    }
    for stated in ("Payment of 10 KES.\n…\n", "Payment …\n", "…\nIt is COMPLETED.\n", ""):
        with pytest.raises(AssertionError, match="here"):
            pasted.compare(stated, said, "here")


def test_blocks_are_read_as_they_stand() -> None:
    text = "<!-- not run: why -->\n```sh\na\n```\n\n```console\n$ b \\\n  c\nd\n$ e\n```\n"

    excused, shown = blocks_of(text)

    assert (excused.language, excused.excuse, shown.excuse) == ("sh", "why", None)
    (inside,) = blocks_of("1. A list:\n\n   ```sh\n   a\n     b\n   ```\n")
    assert (inside.text, inside.line) == ("a\n  b\n", 3)
    assert steps(shown.text) == [("b \\\n  c", "d\n"), ("e", "")]
    assert {excused.language, shown.language} <= set(RUN)

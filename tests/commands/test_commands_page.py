"""docs/commands.md, pasted from top to bottom, on payments like those that it shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from commands.conftest import SILENT, contradict_one, fail_one, puzzle_one
from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.pages import Page
from harness.settings import environment

BLOCKS = 6


def make_the_payments(gateway: Gateway) -> None:
    """In the order of the page: what it shows first is the newest."""
    contradict_one(gateway)
    puzzle_one(gateway)
    fail_one(gateway)
    gateway.pay(SILENT)
    gateway.post("/callback", callback_body("ws_CO_nobodys", receipt="UJ22T8IYOV"))
    gateway.work()


@pytest.mark.timeout(300)
def test_the_page_of_commands_works_when_it_is_pasted(gateway: Gateway, tmp_path: Path) -> None:
    make_the_payments(gateway)
    env = environment(
        database_url=gateway.database_url,
        redis_url=gateway.services.config.redis_url,
        base_url=gateway.simulator.url,
        callback_url=f"{gateway.url}/callback",
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    page = Page(
        "commands.md",
        tmp_path,
        env={**env, "PATH": path},
        places={
            "https://shop.example/hook": gateway.receiver.url,
            "http://localhost:8090": gateway.simulator.url,
        },
    )

    assert page.run() == BLOCKS

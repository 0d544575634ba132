"""A real Chromium without a window, spoken to by the DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from harness.snippets import program
from mpesa_devkit.processes import Process

PATIENCE_S = 60.0
POLL_S = 0.2
# Nothing but the machine itself has an address: a page that needs another host fails here.
_NOWHERE = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@dataclass
class Visit:
    """What opening a page came to."""

    value: Any = None
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Browser:
    """Opens pages, each in a new tab."""

    address: str

    def visit(self, url: str, expression: str) -> Visit:
        """Open a page and return the expression's value once it is true, and what was requested."""
        return asyncio.run(self._visit(url, expression))

    async def _visit(self, url: str, expression: str) -> Visit:
        async with aiohttp.ClientSession(f"http://{self.address}") as http:
            async with http.put("/json/new?about:blank") as answer:
                tab = await answer.json(content_type=None)
            path = f"/devtools/page/{tab['id']}"
            async with http.ws_connect(path, max_msg_size=0) as socket:
                return await _Tab(socket).open(url, expression)


class _Tab:
    """One conversation: commands have numbers, events come in between."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.visit = Visit()

    async def open(self, url: str, expression: str) -> Visit:
        for name in ("Network", "Runtime", "Page"):
            await self._ask(f"{name}.enable")
        # A search runs in a worker, whose requests are told in a session of its own.
        await self._ask(
            "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True
        )
        await self._ask("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_S):
            while not self.visit.value:
                await asyncio.sleep(POLL_S)
                said = await self._ask(
                    "Runtime.evaluate", expression=expression, returnByValue=True
                )
                self.visit.value = said["result"].get("value")
        return self.visit

    async def _ask(self, method: str, session: str = "", **params: object) -> dict[str, Any]:
        number = await self._send(method, session, **params)
        while True:
            said = json.loads(await self._socket.receive_str())
            if said.get("id") == number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result
            await self._heard(said.get("method"), said.get("params", {}))

    async def _send(self, method: str, session: str = "", **params: object) -> int:
        number = next(self._numbers)
        message: dict[str, object] = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        return number

    async def _heard(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Target.attachedToTarget":
            await self._send("Network.enable", params["sessionId"])
        elif event == "Network.requestWillBeSent":
            self.visit.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.visit.errors.append(str(params["exceptionDetails"]))


@contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """A browser with a profile of its own. Skips where no Chromium is installed."""
    profile = directory / "chromium"
    profile.mkdir()
    told = profile / "DevToolsActivePort"
    process = Process(
        "chromium",
        [program("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu",
         "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
         f"--host-resolver-rules={_NOWHERE}", f"--user-data-dir={profile}",
         "--remote-debugging-port=0", "about:blank"],
        log=directory / "chromium.log",
    )  # fmt: skip
    try:
        process.wait_until(lambda: told.exists() and "\n" in told.read_text("utf-8"))
        yield Browser(f"127.0.0.1:{told.read_text('utf-8').splitlines()[0]}")
    finally:
        process.stop()

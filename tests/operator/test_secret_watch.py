"""The watch of Secrets: metadata only, and on after whatever ends it. The server is a script."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from mpesa_devkit.http_server import QuietServer
from mpesa_operator import secret_watch
from mpesa_operator.secret_watch import SecretWatch

CANARY = "canary-of-an-answer"


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RECONNECT_S", "FIRST_RETRY_S", "LONGEST_RETRY_S"):
        monkeypatch.setattr(secret_watch, name, 0.01)


def event(kind: str, version: str, name: str = "daraja") -> str:
    meta = {"namespace": "shops", "name": name, "resourceVersion": version}
    return json.dumps({"type": kind, "object": {"metadata": meta}})


@dataclass
class Stream:
    """What one watch is answered; `cut` ends it in the middle of a line."""

    lines: list[str] = field(default_factory=list)
    status: int = 200
    cut: bool = False


class Script:
    """An API server that answers what it was told to, then keeps the last watch open."""

    def __init__(self, *answers: Stream, listings: tuple[int, ...] = ()) -> None:
        self.streams = deque(answers)
        self.listings = deque(listings)
        self.versions: list[str] = []
        self.accepted: set[str] = set()
        self.listed = 0
        self.over = threading.Event()


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.accepted.add(self.headers["Accept"])
            query = parse_qs(urlsplit(self.path).query)
            if "watch" in query:
                script.versions.append(query["resourceVersion"][0])
                self._watch(script.streams.popleft() if script.streams else None)
            else:
                script.listed += 1
                self._list(script.listings.popleft() if script.listings else 200)

        def _list(self, status: int) -> None:
            body = json.dumps({"metadata": {"resourceVersion": f"{script.listed}00"}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _watch(self, stream: Stream | None) -> None:
            self.send_response(stream.status if stream else 200)
            body = "".join(f"{line}\n" for line in stream.lines).encode() if stream else b""
            if stream is None or stream.cut:
                self.send_header("Content-Length", str(len(body) + 100))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            if stream is None:
                script.over.wait(30)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def served(script: Script) -> Iterator[str]:
    server = QuietServer(("127.0.0.1", 0), _handler(script))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        script.over.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


@dataclass
class Heard:
    """What the listener was told, in order."""

    said: list[str] = field(default_factory=list)

    def secret_seen(self, namespace: str, name: str) -> None:
        self.said.append(f"{namespace}/{name}")

    def secrets_watched(self, namespace: str) -> None:
        self.said.append(f"watched {namespace}")

    def secrets_unwatched(self, namespace: str) -> None:
        self.said.append(f"unwatched {namespace}")


def listen(script: Script, *, until: Callable[[Heard], bool], namespace: str = "shops") -> Heard:
    """Watch until that is true."""
    heard = Heard()

    async def watch(url: str) -> None:
        def client(timeout: httpx2.Timeout) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(base_url=url, timeout=timeout, trust_env=False)

        task = asyncio.create_task(SecretWatch(client, heard, namespace).loop())
        try:
            async with asyncio.timeout(20):
                await _until(lambda: until(heard), task)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    with served(script) as url:
        asyncio.run(watch(url))
    return heard


async def _until(done: Callable[[], bool], task: Awaitable[None]) -> None:
    while not done():
        assert isinstance(task, asyncio.Task)
        if task.done():
            task.result()
            raise AssertionError("the watch has ended")
        await asyncio.sleep(0.01)


def test_a_change_is_told_and_only_metadata_is_asked_for() -> None:
    script = Script(Stream([event("MODIFIED", "101"), event("DELETED", "102", "hooks")]))
    heard = listen(script, until=lambda it: len(it.said) == 3)
    assert heard.said == ["watched shops", "shops/daraja", "shops/hooks"]
    assert {it.split(";")[1] for it in script.accepted} <= {
        "as=PartialObjectMetadata",
        "as=PartialObjectMetadataList",
    }


def test_a_stream_that_ends_goes_on_where_it_was() -> None:
    script = Script(Stream([event("MODIFIED", "101"), event("BOOKMARK", "150")]), Stream())
    heard = listen(script, until=lambda _: len(script.versions) == 3)
    assert script.versions == ["100", "150", "150"]
    assert heard.said == ["watched shops", "shops/daraja"]
    assert script.listed == 1


def test_a_stream_that_is_cut_off_goes_on_where_it_was() -> None:
    script = Script(Stream([event("MODIFIED", "101")], cut=True))
    heard = listen(script, until=lambda _: len(script.versions) == 2)
    assert script.versions == ["100", "101"]
    assert heard.said == ["watched shops", "shops/daraja"]


@pytest.mark.parametrize(
    "gone",
    [
        Stream(status=410),
        Stream([json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}})]),
    ],
    ids=["answer", "event"],
)
def test_a_version_that_is_too_old_begins_anew(gone: Stream) -> None:
    """What was missed in between is looked for: `watched` is said again."""
    script = Script(Stream([event("MODIFIED", "101")]), gone)
    heard = listen(script, until=lambda it: it.said.count("watched shops") == 2)
    assert heard.said == ["watched shops", "shops/daraja", "unwatched shops", "watched shops"]
    assert script.versions == ["100", "101", "200"]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_where_it_may_not_watch_it_says_so_and_tries_again(status: int) -> None:
    script = Script(listings=(status, status))
    heard = listen(script, until=lambda it: "watched shops" in it.said)
    assert heard.said == ["unwatched shops", "unwatched shops", "watched shops"]


def test_a_right_that_is_taken_away_is_noticed_and_missed_until_it_is_back() -> None:
    script = Script(Stream([event("ADDED", "101")]), Stream(status=403))
    heard = listen(script, until=lambda it: it.said.count("watched shops") == 2)
    assert heard.said == ["watched shops", "shops/daraja", "unwatched shops", "watched shops"]


@pytest.mark.parametrize("line", [CANARY, json.dumps([CANARY])])
def test_what_is_no_event_ends_the_watch_and_is_not_repeated(
    line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    heard = listen(
        Script(Stream([line])), until=lambda it: it.said.count("watched *") == 2, namespace="*"
    )
    assert heard.said[:3] == ["watched *", "unwatched *", "watched *"]
    assert CANARY not in "".join(capfd.readouterr())

"""An API that was told to stop tells its clients to go, and loses none of their requests."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import pytest

from harness.hanging import hung
from harness.processes import Processes
from harness.waiting import wait_for
from harness.wire import Wire, request_bytes
from mpesa_devkit.processes import Process
from mpesa_gateway.api.protocol import LINGER_S
from mpesa_gateway.api.server import DRAIN_S

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def post(connection: HTTPConnection) -> tuple[int, str | None]:
    """The status of a callback on that connection, and what its answer says of the connection."""
    connection.request("POST", "/callback", body=b"{}")
    response = connection.getresponse()
    response.read()
    return response.status, response.headers["Connection"]


def test_kept_connections_are_closed_by_an_answer_that_says_so(
    gateway: Processes, port: int
) -> None:
    """Without that, a request sent while the server closes its connections has no answer."""
    api = gateway.api(port)
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as kept:
        assert post(kept) == (200, None)
        assert post(kept) == (200, None)
        api.send(signal.SIGTERM)
        wait_for(lambda: not gateway.is_ready(port), timeout_s=2)

        assert post(kept) == (200, "close")


# So long a process gets no CPU.
STILL_S = 1.0
CALLBACK = request_bytes("POST", "/callback", body=b"{}")


def ask(wire: Wire) -> tuple[int, str | None]:
    """As `post`, with no library that might send it again on another connection."""
    wire.send(CALLBACK)
    return answer(wire)


def answer(wire: Wire) -> tuple[int, str | None]:
    reply = wire.read()
    return reply.status, reply.headers.get("connection")


@contextmanager
def without_cpu(api: Process, around: float) -> Iterator[None]:
    """The API's processes stand still from a little before until a little after that moment."""
    wait_until(around - STILL_S / 2)
    with hung(api.pid):
        yield
        wait_until(around + STILL_S / 2)


def wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def test_what_is_sent_as_connections_are_closed_is_answered(gateway: Processes, port: int) -> None:
    """A process that got no CPU for a moment finds its timers due before it reads its sockets."""
    api, url = gateway.api(port), f"http://127.0.0.1:{port}"
    with Wire(url) as soon, Wire(url) as late, Wire(url) as silent, Wire(url) as unused:
        assert [ask(it) for it in (soon, late, unused)] == [(200, None)] * 3
        api.send(signal.SIGTERM)
        drained = time.monotonic() + DRAIN_S
        with without_cpu(api, drained):
            soon.send(CALLBACK)
            stranger = Wire(url)
            stranger.send(CALLBACK)
        assert answer(soon) == (200, "close")
        with stranger:
            assert answer(stranger) == (200, "close")
        assert ask(silent) == (200, "close")
        with without_cpu(api, drained + STILL_S / 2 + LINGER_S):
            late.send(CALLBACK)
        assert answer(late) == (200, "close")
        assert unused.is_cut()
    wait_for(lambda: not api.is_running(), what="the API to end")
    assert api.exit_status == 0

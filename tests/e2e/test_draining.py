"""An API that was told to stop tells its clients to go, and loses none of their requests."""

from __future__ import annotations

import signal
from contextlib import closing
from http.client import HTTPConnection

import pytest

from harness.processes import Processes
from harness.waiting import wait_for

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

"""Stand-ins print tracebacks of errors, and none of a peer that hung up."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest

from mpesa_devkit.http_server import QuietServer


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), False),
        (BrokenPipeError(32, "Broken pipe"), False),
        (TimeoutError("timed out"), True),
        (ValueError("a mistake of the stand-in"), True),
    ],
)
def test_only_a_peer_that_hung_up_is_no_news(
    error: Exception, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with QuietServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        try:
            fail(error)
        except Exception:  # noqa: BLE001 - as socketserver does
            server.handle_error(None, ("127.0.0.1", 1))

    assert (str(error) in capsys.readouterr().err) == shown

"""The HTTP server of stand-ins: the demo's endpoint, and those of the tests."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """Prints no traceback of a peer that hung up. Every other error is shown, as it should be."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called inside the `except` block of a request."""
        if not isinstance(sys.exc_info()[1], ConnectionResetError | BrokenPipeError):
            super().handle_error(request, client_address)

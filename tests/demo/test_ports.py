"""A port that a test was given stays its own, also while the server on it is stopped."""

from __future__ import annotations

import socket

import pytest

from mpesa_devkit.processes import free_port


def _listen(port: int) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=5.0):
            pass


def test_a_server_listens_stops_and_listens_again() -> None:
    port = free_port()

    _listen(port)
    _listen(port)


def test_nobody_else_gets_the_port_while_no_server_listens() -> None:
    # The kernel picks ports for clients, and for `bind` to port 0, by the same rule.
    port = free_port()

    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind(("127.0.0.1", port))


def test_while_no_server_listens_connections_are_refused() -> None:
    port = free_port()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5.0)

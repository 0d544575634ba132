"""Statements without a deadline, watched from a second connection: an index of a big table."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from mpesa_gateway.errors import SchemaError
from mpesa_gateway.store.deadline import BoundedConnection

# How often somebody is told that it still runs, and the server is asked whether it does.
LOOK_EVERY_S = 30.0


@contextmanager
def watched(
    conn: BoundedConnection, check: Callable[[], None], say: Callable[[str], None]
) -> Iterator[None]:
    """Let `conn` wait for as long as its server answers `check`, on a connection of its own.

    `check` raises SchemaError when the server is gone: then `conn` is cut, and raises.
    """
    ended = threading.Event()
    begun_s = time.monotonic()

    def look() -> None:
        while not ended.wait(LOOK_EVERY_S):
            say(f"still running after {time.monotonic() - begun_s:.0f} s")
            try:
                check()
            except SchemaError:
                _cut(conn)
                return

    conn.deadline_s, deadline_s = None, conn.deadline_s
    thread = threading.Thread(target=look, name="long-statement", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        conn.deadline_s = deadline_s


def _cut(conn: BoundedConnection) -> None:
    """End the connection under whoever waits for it in another thread."""
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(conn.fileno())) as sock,
    ):
        sock.shutdown(socket.SHUT_RDWR)

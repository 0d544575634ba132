"""Falcon (WSGI) under gunicorn's gthread worker, psycopg-pool, a commit per row.

Run as `python -m bench.peers.falcon_gthread PORT DATABASE_URL`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import falcon
from gunicorn.app.base import BaseApplication
from psycopg_pool import ConnectionPool

THREADS = 16
INSERT = (
    "INSERT INTO peer_callbacks (transaction_id, by_token, body, body_sha256, source, received_at,"
    " last_received_at, next_attempt_at) VALUES (%s, true, %s, %s, '127.0.0.1', now(), now(),"
    " now()) ON CONFLICT (transaction_id, body_sha256) WHERE by_token"
    " DO UPDATE SET copies = peer_callbacks.copies + 1"
)


class CallbackResource:
    """POST /callback/{transaction}."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    def on_post(self, req: falcon.Request, resp: falcon.Response, transaction: int) -> None:
        """200 once the row is committed."""
        body = req.bounded_stream.read()
        json.loads(body)
        with self._pool.connection() as conn:
            conn.execute(INSERT, [transaction, body, hashlib.sha256(body).digest()])
        resp.media = {"ResultCode": 0, "ResultDesc": "Accepted"}


class Application(BaseApplication):  # type: ignore[misc]
    """gunicorn with one worker of 16 threads: more are slower at 64 connections."""

    def __init__(self, port: str, database_url: str) -> None:
        self._port = port
        self._database_url = database_url
        super().__init__()

    def load_config(self) -> None:
        """One process, as many threads as connections to Postgres."""
        settings = {
            "bind": f"127.0.0.1:{self._port}",
            "worker_class": "gthread",
            "workers": 1,
            "threads": THREADS,
            "keepalive": 30,
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> falcon.App[falcon.Request, falcon.Response]:
        """In the worker process."""
        pool = ConnectionPool(
            self._database_url,
            min_size=THREADS,
            max_size=THREADS,
            kwargs={"autocommit": True},
            open=True,
        )
        app = falcon.App()
        app.add_route("/callback/{transaction:int}", CallbackResource(pool))
        return app


if __name__ == "__main__":
    Application(*sys.argv[1:]).run()

"""Why Postgres cannot be reached, in words that hold no secret."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
import pytest

from mpesa_gateway.store.reach import why_not

PASSWORD = "hunter2"


def test_a_database_that_is_not_there(database_url: str) -> None:
    address = urlsplit(database_url).netloc.partition("@")[2]
    missing = database_url.rpartition("/")[0] + "/nothing_here"

    assert why_not(missing) == f"{address}: it has no such database or user"
    assert why_not(database_url) == "it answers now; try again"


def test_a_server_without_a_connection_left(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("CREATE ROLE lonely LOGIN CONNECTION LIMIT 0")
        try:
            url = database_url.replace("postgres@", "lonely@")
            assert why_not(url).endswith("all of its connections are taken")
        finally:
            conn.execute("DROP ROLE lonely")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:{}@127.0.0.1:1/x", "127.0.0.1:1: the connection is refused"),
        ("postgresql://u:{}@nowhere.invalid/x", "nowhere.invalid:5432: nobody knows that host"),
        # A password that should have been percent-encoded is taken for a host or a port.
        ("postgresql://u:{}/x@h/x", "the URL cannot be read"),
        ("postgresql://u:a@{}@h/x", "the URL cannot be read"),
        ("postgresql://u:a {}@h:x/x", "the URL cannot be read"),
    ],
)
def test_no_password_is_told(url: str, words: str) -> None:
    said = why_not(url.format(PASSWORD))

    assert said.startswith(words)
    assert PASSWORD not in said

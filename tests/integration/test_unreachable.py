"""Why Postgres cannot be reached, in words that hold no secret."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg

from harness.collecting import every_case
from mpesa_gateway.store.connection_errors import why_not

PASSWORD = "hunter2"
REFUSED = "127.0.0.1:1: the connection is refused: it is not running, or not there"


def test_a_database_that_is_not_there(database_url: str) -> None:
    address = urlsplit(database_url).netloc.partition("@")[2]
    missing = database_url.rpartition("/")[0] + "/nothing_here"

    assert why_not(missing) == f"{address}: it has no such database or user"
    assert why_not(database_url) == "it answers now; try again"


def test_a_server_that_takes_no_writes_beside_one_that_is_gone(database_url: str) -> None:
    address = urlsplit(database_url).netloc.partition("@")[2]
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    url = f"postgresql://postgres@127.0.0.1:1,{address}/{name}?target_session_attrs=read-write"

    assert why_not(url) == (
        "127.0.0.1:1: the connection is refused: it is not running, or not there;"
        f" {address}: it takes no writes (a standby, or read-only mode)"
    )


def test_a_server_without_a_connection_left(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("CREATE ROLE lonely LOGIN CONNECTION LIMIT 0")
        try:
            url = database_url.replace("postgres@", "lonely@")
            assert why_not(url).endswith("all of its connections are taken")
        finally:
            conn.execute("DROP ROLE lonely")


@every_case(
    ("url", "words"),
    [
        ("postgresql://u:{}@127.0.0.1:1/x", "127.0.0.1:1: the connection is refused"),
        ("postgresql://u:{}@nowhere.invalid/x", "nowhere.invalid:5432: nobody knows that host"),
        (
            "postgresql://u:{}@127.0.0.1:1,nowhere.invalid:2,127.0.0.1:3/x",
            f"{REFUSED}; nowhere.invalid:2: nobody knows that host name; 127.0.0.1:3: the connect",
        ),
        (
            "postgresql://u:{}@127.0.0.1,127.0.0.1/x?port=1",
            "127.0.0.1:1: the connection is refused",
        ),
        ("postgresql://u:{}@a,b,c/x?port=1,2", "the URL cannot be read"),
        ("postgresql://u:{}@h/x?{}=1", "the URL cannot be read"),
        ("postgresql://u:{}@[::1]/x?target_session_attrs=no", "::1:5432: target_session_attrs has"),
        ("postgresql://u:{}@[::1]/x?sslmode=no", "::1:5432: sslmode has"),
        # A password that should have been percent-encoded is taken for a host or a port.
        ("postgresql://u:{}/x@h/x", "the URL cannot be read"),
        ("postgresql://u:a@{}@h/x", "the URL cannot be read"),
        ("postgresql://u:a {}@h:x/x", "the URL cannot be read"),
    ],
)
def test_no_password_is_told(url: str, words: str) -> None:
    said = why_not(url.replace("{}", PASSWORD))

    assert said.startswith(words)
    assert PASSWORD not in said

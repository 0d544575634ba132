"""Why Postgres cannot be reached: where it was looked for, and what is wrong there, in words."""

from __future__ import annotations

import re

import psycopg
from psycopg import conninfo

from mpesa_gateway.store.pool import CONNECT_TIMEOUT_S

# What a failed connection says, and what that means for a person. Constant sentences: Postgres's
# own may quote a part of a URL that is written wrongly, and so a password.
_REASONS = {
    "Connection refused": "the connection is refused: it is not running, or not there",
    "could not translate host name": "nobody knows that host name",
    "failed to resolve host": "nobody knows that host name",
    "No route to host": "there is no way to that host",
    "timeout expired": "nothing comes back: a firewall, or a host that is gone",
    "password authentication failed": "it refuses the user or the password",
    "no pg_hba.conf entry": "it admits nobody from here with that user (pg_hba.conf)",
    "too many clients": "all of its connections are taken",
    "remaining connection slots": "all of its connections are taken",
    "too many connections": "all of its connections are taken",
    "session is read-only": "it takes no writes (a standby, or read-only mode)",
    "hot standby": "it takes no writes (a standby)",
    "transaction blocks not allowed": "a pooler in statement mode; set pool_mode = transaction",
    "server_login": "a pooler that cannot reach Postgres",
    "server login": "a pooler that cannot reach Postgres",
    "cannot connect to server": "a pooler that cannot reach Postgres",
    "query_wait_timeout": "a pooler without a free connection to Postgres",
    "no more connections allowed": "a pooler whose max_client_conn is used up",
    "unsupported startup parameter": "a pooler that refuses a parameter of the URL",
    "target_session_attrs": "target_session_attrs has a value that libpq does not know",
    "sslmode value": "sslmode has a value that libpq does not know",
    "starting up": "it is starting",
    "shutting down": "it is shutting down",
    "recovery": "it is recovering",
    "does not exist": "it has no such database or user",
    "SSL": "TLS cannot be agreed on (sslmode)",
}
_HOST = re.compile(r"[A-Za-z0-9._:/-]+")


def why_not(url: str) -> str:
    """Where Postgres should be and what is wrong there; it is asked once more."""
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as conn:
            # A pooler takes a connection although it has none to Postgres, or allows no BEGIN.
            conn.execute("BEGIN")
            conn.execute("SELECT 1")
            return "it answers now; try again"
    except psycopg.Error as error:
        return in_words(url, error)


def in_words(url: str, error: psycopg.Error) -> str:
    """Why a connection failed, for a person. What a URL holds is shown only where it is in order:

    a password with an `@` or a `/` in it is easily taken for a host or a port.
    """
    servers = _servers(url)
    if servers is None:
        return (
            "the URL cannot be read: a password in it must be percent-encoded, and a parameter must"
            " be one of libpq's"
        )
    said = str(error)
    if len(servers) == 1:
        ((host, port),) = servers
        return f"{host}:{port}: {_reason(said, 'the connection failed')}"
    # psycopg skips a host without an address, and says nothing of it.
    parts = [
        f"{host}:{port}: {_reason(_about(said, host, port), 'nobody knows that host name')}"
        for host, port in servers
    ]
    return "; ".join(parts)


def _servers(url: str) -> list[tuple[str, str]] | None:
    """Each host with its port; None where the URL is not in order."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return None
    hosts = str(parts.get("host", "localhost")).split(",")
    ports = str(parts.get("port", "5432")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    ports = [port or "5432" for port in ports]
    if len(ports) != len(hosts) or not all(_HOST.fullmatch(host) for host in hosts):
        return None
    return list(zip(hosts, ports, strict=True)) if all(it.isdecimal() for it in ports) else None


def _about(said: str, host: str, port: str) -> str:
    """What an error of several attempts says of one of them; all of it when it lists none."""
    attempts = said.partition("All failures were:")[2].split("\n- host: ")
    if len(attempts) == 1:
        return said if f'"{host}", port {port}' in said else ""
    return next((it for it in attempts if it.startswith(f"'{host}', port: '{port}'")), "")


def _reason(said: str, otherwise: str) -> str:
    if not said:
        return otherwise
    reasons = (text for words, text in _REASONS.items() if words in said)
    return next(reasons, "the connection failed")


def can_connect(url: str) -> bool:
    """Whether a fresh connection can be made now, within a few seconds."""
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S):
            return True
    except psycopg.Error:
        return False

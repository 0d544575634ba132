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
        with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S):
            return "it answers now; try again"
    except psycopg.Error as error:
        return in_words(url, error)


def in_words(url: str, error: psycopg.Error) -> str:
    """Why a connection failed, for a person. What a URL holds is shown only where it is in order:

    a password with an `@` or a `/` in it is easily taken for a host or a port.
    """
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        parts = {"host": ""}
    host, port = str(parts.get("host", "localhost")), str(parts.get("port", "5432"))
    if not _HOST.fullmatch(host) or not port.isdecimal():
        return "the URL cannot be read; a password in it must be percent-encoded"
    said = str(error)
    reasons = (text for words, text in _REASONS.items() if words in said)
    return f"{host}:{port}: {next(reasons, 'the connection failed')}"

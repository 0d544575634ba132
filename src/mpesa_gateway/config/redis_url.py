"""The forms of `MPESA_REDIS_URL`. No sentence here repeats a part of the URL but what is known.

A password that is not percent-encoded is easily taken for a host or an option.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

FORMS = (
    "redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://… for TLS, unix:///PATH,"
    " or redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE/DB"
)
# With TLS: to the servers and to the Sentinels.
_SENTINEL = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_SCHEMES = {"redis", "rediss", "unix", *_SENTINEL}
# Time-outs, retries and pool sizes are ours: a wait without a limit would hang a thread.
_OPTIONS = {
    "db",
    "username",
    "password",
    "protocol",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
SENTINEL_PORT = 26379
HIGHEST_PORT = 65535


@dataclass(frozen=True)
class RedisUrl:
    """A parsed URL. `server` is a URL that redis-py understands.

    With Sentinels its host is the first Sentinel and has no meaning: they name the server.
    """

    server: str
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.server.startswith("rediss:")


def parse_redis_url(value: str) -> RedisUrl:
    """Parse one of the forms. Raises ValueError with a sentence that holds no secret."""
    try:
        parts = urlsplit(value)
    except ValueError:
        raise _unreadable() from None
    if parts.scheme in ("redis+cluster", "rediss+cluster"):
        raise ValueError("names a Redis Cluster, which is not supported; docs/redis.md")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"is not one of the forms {FORMS}")
    if parts.scheme == "unix":
        return _unix(value, parts)
    hosts = _hosts(parts)
    options = _options(parts)
    if parts.scheme in _SENTINEL:
        return _sentinel(parts, hosts, options)
    if len(hosts) > 1:
        raise ValueError(
            "names several hosts; servers behind Sentinels are redis+sentinel://HOST:PORT,HOST:PORT"
            "/SERVICE/DB, and Redis Cluster is not supported"
        )
    _check_options(options, _OPTIONS)
    _check_database(parts.path.strip("/") or "0")
    return RedisUrl(value)


def redis_url(value: str) -> str:
    """The URL as it is, once it has one of the forms."""
    parse_redis_url(value)
    return value


def _unix(value: str, parts: SplitResult) -> RedisUrl:
    if not parts.path or parts.hostname:
        raise ValueError("has no path of a socket: unix:///PATH?db=DB")
    _check_options(_options(parts), _OPTIONS)
    return RedisUrl(value)


def _sentinel(
    parts: SplitResult, hosts: list[tuple[str, int | None]], options: dict[str, str]
) -> RedisUrl:
    _check_options(options, _OPTIONS | _SENTINEL_OPTIONS)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError(
            "names no service: redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB, where SERVICE is"
            " the name in the Sentinels' `sentinel monitor`"
        )
    _check_database(database or "0")
    user, at, _ = parts.netloc.rpartition("@")
    host, port = hosts[0]
    query = "&".join(
        it for it in parts.query.split("&") if it.partition("=")[0] not in _SENTINEL_OPTIONS
    )
    netloc = f"{user}{at}{host}:{port or SENTINEL_PORT}"
    return RedisUrl(
        urlunsplit((_SENTINEL[parts.scheme], netloc, f"/{database or 0}", query, "")),
        tuple((host.strip("[]"), port or SENTINEL_PORT) for host, port in hosts),
        unquote(service),
        options.get("sentinel_username"),
        options.get("sentinel_password"),
    )


def _hosts(parts: SplitResult) -> list[tuple[str, int | None]]:
    hosts: list[tuple[str, int | None]] = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        match = _HOST.fullmatch(text)
        if match is None or parts.fragment or int(match[2] or 1) not in range(1, HIGHEST_PORT + 1):
            raise _unreadable()
        hosts.append((match[1], int(match[2]) if match[2] else None))
    return hosts


def _options(parts: SplitResult) -> dict[str, str]:
    return dict(parse_qsl(parts.query, keep_blank_values=True))


def _check_options(options: dict[str, str], allowed: set[str]) -> None:
    if not options.keys() <= allowed:
        raise ValueError(f"has an option that is none of {', '.join(sorted(allowed))}")
    _check_database(options.get("db", "0"))
    if options.get("ssl_cert_reqs", "none") not in ("none", "optional", "required"):
        raise ValueError("has an ssl_cert_reqs that is none of none, optional, required")
    if options.get("protocol", "2") not in ("2", "3"):
        raise ValueError("has a protocol that is neither 2 nor 3")


def _check_database(text: str) -> None:
    if not text.isascii() or not text.isdigit():
        raise ValueError("has a database that is no number: …/0")


def _unreadable() -> ValueError:
    return ValueError(f"cannot be read; a password in it must be percent-encoded. Forms: {FORMS}")

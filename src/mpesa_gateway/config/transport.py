"""Whether a connection would cross a public network in the clear, judged by its URL alone."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from mpesa_gateway.domain.production import is_local_host

# libpq's other modes send everything in the clear, or do so when the server asks for it.
_MODES_WITH_TLS = frozenset({"require", "verify-ca", "verify-full"})


def is_postgres_in_the_clear(url: str) -> bool:
    """Whether Postgres may be reached without TLS at an address that is not local."""
    options = dict(parse_qsl(_split_query(url), keep_blank_values=True))
    mode = "require" if options.get("ssl") == "true" else options.get("sslmode")
    if mode in _MODES_WITH_TLS:
        return False
    # libpq dials `hostaddr` where there is one, else the option `host`, else the URL's hosts.
    dialled = options.get("hostaddr") or options.get("host")
    hosts = dialled.split(",") if dialled else _hosts(url)
    return not all(_is_near(host) for host in hosts)


def is_redis_in_the_clear(url: str) -> bool:
    """Whether Redis, or one of its sentinels, is reached without TLS at a public address."""
    scheme = url.partition("://")[0].lower()
    if scheme.startswith(("rediss", "unix")):
        return False
    return not all(_is_near(host) for host in _hosts(url))


def is_http_in_the_clear(url: str) -> bool:
    """Whether an http URL leads to an address that is not local."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_local_host(parts.hostname or "")


def _split_query(url: str) -> str:
    return url.partition("?")[2].partition("#")[0]


def _hosts(url: str) -> list[str]:
    """The hosts before the path: several with commas, each perhaps with a port or in brackets."""
    rest = url.partition("://")[2]
    for end in "/?#":
        rest = rest.partition(end)[0]
    return [_without_port(unquote(it)) for it in rest.rpartition("@")[2].split(",")]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_near(host: str) -> bool:
    """Local, or a socket file; no host at all is libpq's default socket, or this machine."""
    return not host or host.startswith(("/", "@")) or is_local_host(host)

"""Outbound HTTP: requests sessions whose connections resolve once, vet, and dial what was vetted.

The guard sits in the connection, so that no redirect, proxy variable or second name look-up can
lead around it. Redirects are never followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import time
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from mpesa_gateway.clients.connections import SharedPools
from mpesa_gateway.clients.deadline import DeadlineSocket, current_exchange, tls_context
from mpesa_gateway.clients.lookups import Lookups, Resolve
from mpesa_gateway.domain.endpoint import vet_addresses
from mpesa_gateway.domain.merchant import Address, Network

MAX_ADDRESSES = 16
# A kept connection older than this may be closed by its server just while we write: use a new one.
REUSE_IDLE_S = 2.0
# Connections that are kept for later. As many as pushes may be in flight: one that finds no room
# is closed, and the next push pays for a TLS handshake.
POOL_SIZE = 128


def resolve_name(host: str, port: int) -> list[Address]:
    """Every address of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(entry[4][0])) for entry in found]
    return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]


@dataclass(frozen=True)
class Guard:
    """Which addresses may be dialled. `vet=False` is for Daraja, whose address an operator sets.

    Each guard has look-up threads of its own: names of endpoints that hang keep nobody from Daraja.
    """

    vet: bool = True
    allow_private: bool = False
    denied: tuple[Network, ...] = ()
    resolve: Resolve = field(default=resolve_name, repr=False)
    lookups: Lookups = field(default_factory=lambda: Lookups("webhook"), repr=False, compare=False)

    def dial(self, host: str, port: int) -> socket.socket:
        """Connect to a vetted address of the host. Raises EgressRefusedError, OSError."""
        addresses = self._look_up(host, port)
        if self.vet:
            vet_addresses(addresses, allow_private=self.allow_private, denied=self.denied)
        problem: OSError = OSError("the host name has no address")
        for address in addresses:
            try:
                return _connect(address, port)
            except OSError as error:
                problem = error
        raise problem

    def _look_up(self, host: str, port: int) -> list[Address]:
        try:
            return [ipaddress.ip_address(host.strip("[]"))]
        except ValueError:
            pass
        # The final dot keeps the search list away: `ndots:5` would try cluster names first.
        name = host if not self.vet or self.allow_private or host.endswith(".") else f"{host}."
        remaining_s = current_exchange().remaining_s()
        return self.lookups.find(self.resolve, name, port, timeout_s=remaining_s)


def _connect(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    sock = DeadlineSocket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(current_exchange().remaining_s())
        sock.connect((str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Guarded:
    """Mixed into urllib3's connections: dial through the guard, reuse nothing that went stale."""

    guard: Guard
    _used_at: float = 0.0

    def _new_conn(self) -> socket.socket:
        return self.guard.dial(self.host, self.port)  # type: ignore[attr-defined]

    @property
    def is_connected(self) -> bool:
        """Whether the pool may use the connection again."""
        fresh = time.monotonic() - self._used_at < REUSE_IDLE_S
        return fresh and bool(super().is_connected)  # type: ignore[misc]

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        """Note when the connection was last in use; leave no cookie for a parser to read."""
        self._used_at = time.monotonic()
        response = super().getresponse(*args, **kwargs)  # type: ignore[misc]
        for name in ("Set-Cookie", "Set-Cookie2"):
            del response._original_response.msg[name]  # noqa: SLF001 - what requests parses
        return response


class _FinalResponse(http.client.HTTPResponse):
    """Skips interim answers (1xx, RFC 9110 15.2) as http.client itself skips only 100.

    It would take another one for the final answer, and the final one for the next request's.
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        while http.client.SWITCHING_PROTOCOLS < status < http.client.OK:
            http.client.parse_headers(self.fp)
            version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status, reason


class GuardedAdapter(HTTPAdapter):
    """A requests transport with guarded connections, one pool for all its callers."""

    def __init__(self, guard: Guard, extra_ca: str | None = None) -> None:
        self._guard = guard
        self._tls = tls_context(extra_ca)
        super().__init__(pool_maxsize=POOL_SIZE, max_retries=0)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002
        """Leave the roots to our context. requests would read its bundle for each connection."""
        assert verify is True, "nobody turns verification off"
        conn.cert_reqs = "CERT_REQUIRED"

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Give the manager pools whose connections know the guard."""
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)
        members = {"guard": self._guard, "response_class": _FinalResponse}
        plain = type("GuardedHTTPConnection", (_Guarded, HTTPConnection), dict(members))
        tls = type("GuardedHTTPSConnection", (_Guarded, HTTPSConnection), dict(members))
        manager: urllib3.PoolManager = self.poolmanager
        manager.pools = SharedPools()  # type: ignore[assignment]
        manager.pool_classes_by_scheme = {
            "http": type("GuardedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("GuardedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
        }


def new_session(guard: Guard, *, user_agent: str, extra_ca: str | None = None) -> requests.Session:
    """A session that several threads may share: no cookies, redirects, encodings, environment."""
    session = _Session()
    session.trust_env = False
    session.headers.clear()
    session.headers.update(
        {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
    )
    session.cookies.set_policy(_NoCookies())
    adapter = GuardedAdapter(guard, extra_ca)
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session


class _Session(requests.Session):
    """Sees no redirect in any answer.

    requests prepares the next request even where none may follow, and for that it reads the whole
    body of a redirect, decoded, before `post` returns.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Never."""


class _NoCookies(DefaultCookiePolicy):
    """Endpoints cannot make us carry anything from one call to the next."""

    def set_ok(self, cookie: object, request: object) -> bool:  # noqa: ARG002
        """Never."""
        return False

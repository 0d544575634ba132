"""Outbound HTTP: requests sessions whose connections resolve once, vet, and dial what was vetted.

The guard sits in the connection, so that no redirect, proxy variable or second name look-up can
lead around it. Redirects are never followed.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from mpesa_gateway.clients.deadline import DeadlineSocket, current_exchange, tls_context
from mpesa_gateway.domain.endpoint import vet_addresses
from mpesa_gateway.domain.merchant import Address, Network

# A look-up that hangs occupies one of these threads, not one of the callers'.
RESOLVER_THREADS = 16
MAX_ADDRESSES = 16
# A kept connection older than this may be closed by its server just while we write: use a new one.
REUSE_IDLE_S = 2.0
# Connections that are kept for later. As many as pushes may be in flight: one that finds no room
# is closed, and the next push pays for a TLS handshake.
POOL_SIZE = 128
# Endpoints whose connections are kept; to make a pool again costs as much as the request.
MAX_ENDPOINTS = 128

Resolve = Callable[[str, int], list[Address]]
_RESOLVERS = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolve")


def resolve_name(host: str, port: int) -> list[Address]:
    """Every address of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(entry[4][0])) for entry in found]
    return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]


@dataclass(frozen=True)
class Guard:
    """Which addresses may be dialled. `vet=False` is for Daraja, whose address an operator sets."""

    vet: bool = True
    allow_private: bool = False
    denied: tuple[Network, ...] = ()
    resolve: Resolve = field(default=resolve_name, repr=False)

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
        future = _RESOLVERS.submit(self.resolve, name, port)
        try:
            return future.result(timeout=current_exchange().remaining_s())
        except FutureTimeoutError as error:
            future.cancel()
            raise TimeoutError("the name look-up took too long") from error


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
        """Note when the connection was last in use."""
        self._used_at = time.monotonic()
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]


class GuardedAdapter(HTTPAdapter):
    """A requests transport with guarded connections, one pool for all its callers."""

    def __init__(self, guard: Guard, extra_ca: str | None = None) -> None:
        self._guard = guard
        self._tls = tls_context(extra_ca)
        super().__init__(pool_connections=MAX_ENDPOINTS, pool_maxsize=POOL_SIZE, max_retries=0)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002
        """Leave the roots to our context. requests would read its bundle for each connection."""
        assert verify is True, "nobody turns verification off"
        conn.cert_reqs = "CERT_REQUIRED"

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Give the manager pools whose connections know the guard."""
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)
        members = {"guard": self._guard}
        plain = type("GuardedHTTPConnection", (_Guarded, HTTPConnection), dict(members))
        tls = type("GuardedHTTPSConnection", (_Guarded, HTTPSConnection), dict(members))
        manager: urllib3.PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {
            "http": type("GuardedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("GuardedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
        }


def new_session(guard: Guard, *, user_agent: str, extra_ca: str | None = None) -> requests.Session:
    """A session that several threads may share: no cookies, no redirects, no environment."""
    session = requests.Session()
    session.trust_env = False
    session.headers.clear()
    session.headers.update({"User-Agent": user_agent, "Accept": "application/json"})
    session.cookies.set_policy(_NoCookies())
    adapter = GuardedAdapter(guard, extra_ca)
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session


class _NoCookies(DefaultCookiePolicy):
    """Endpoints cannot make us carry anything from one call to the next."""

    def set_ok(self, cookie: object, request: object) -> bool:  # noqa: ARG002
        """Never."""
        return False


def read_at_most(response: requests.Response, limit: int) -> bytes:
    """The first bytes of an answer, undecoded; then the connection is given back, or dropped.

    Raises requests.ConnectionError.
    """
    body = b""
    try:
        while len(body) < limit:
            chunk: bytes = response.raw.read1(limit - len(body), decode_content=False)
            if not chunk:
                response.raw.release_conn()
                return body
            body += chunk
    except urllib3.exceptions.HTTPError as error:
        response.close()
        raise requests.ConnectionError(error) from error
    response.close()
    return body

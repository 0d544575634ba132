"""Connections to Redis: to one server, or to the one that the Sentinels name.

Each gives up early: Redis only notifies, and nobody waits for it.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from mpesa_gateway.config.redis_url import RedisUrl, parse_redis_url

# What redis-py would ask of each new connection, an access list would have to allow; and notices of
# maintenance would stretch our time-outs.
_QUIET: dict[str, Any] = {
    "driver_info": None,
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}
# A Sentinel that does not answer is passed over for the next one.
SENTINEL_TIMEOUT_S = 0.5


class _LeavesReplicas:
    """Closes a connection whose server became a replica: the next one finds the new primary."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Like redis-py's own. Raises ConnectionError, so that the caller connects anew."""
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except redis.ReadOnlyError as error:
            self.disconnect()  # type: ignore[attr-defined]
            raise redis.ConnectionError("Redis is a replica and takes no writes") from error


class _Connection(_LeavesReplicas, redis.Connection):
    pass


class _TlsConnection(_LeavesReplicas, SSLConnection):
    pass


class _UnixConnection(_LeavesReplicas, UnixDomainSocketConnection):
    pass


def new_pool(url: str, *, timeout_s: float) -> redis.ConnectionPool:
    """A pool of connections for one of the forms of MPESA_REDIS_URL. Raises ValueError.

    One retry at once, for a connection that went stale; redis-py's own default waits for seconds.
    """
    parsed = parse_redis_url(url)
    limits = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 1),
        **_QUIET,
    }
    options = {**parse_url(parsed.server), **limits}  # type: ignore[no-untyped-call]
    kind = options.pop("connection_class", redis.Connection)
    if parsed.sentinels:
        return _sentinel_pool(parsed, options)
    ours = {SSLConnection: _TlsConnection, UnixDomainSocketConnection: _UnixConnection}
    return redis.ConnectionPool(connection_class=ours.get(kind, _Connection), **options)


def _sentinel_pool(parsed: RedisUrl, options: dict[str, Any]) -> redis.ConnectionPool:
    """Each new connection asks the Sentinels; one to a demoted server is closed by redis-py."""
    del options["host"]
    options.pop("port", None)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        parsed.sentinels,
        sentinel_kwargs={
            "socket_timeout": SENTINEL_TIMEOUT_S,
            "socket_connect_timeout": SENTINEL_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "username": parsed.sentinel_username,
            "password": parsed.sentinel_password,
            "ssl": parsed.is_tls,
            **_QUIET,
            **tls,
        },
    )
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        parsed.service, sentinels, ssl=parsed.is_tls, **options
    )

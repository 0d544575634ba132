"""Refuses, at start, a Postgres or a Redis of a kind that the gateway does not work with.

One that does not answer is no reason to stay down: it may come back, and callbacks wait for nobody.
"""

from __future__ import annotations

from mpesa_gateway.clients.redis_probe import is_cluster
from mpesa_gateway.config import Config
from mpesa_gateway.errors import ConfigError
from mpesa_gateway.services import needed_schema_version
from mpesa_gateway.store.engine import look_at
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)
REDIS_TIMEOUT_S = 1.0


def refuse_unsupported_stores(config: Config) -> None:
    """Raise ConfigError with a sentence for each store of the wrong kind.

    What may pass by itself is a warning in the log.
    """
    problems = []
    look = look_at(config.database_url)
    if look.unsupported is not None:
        problems.append(f"MPESA_DATABASE_URL names the wrong engine: {look.unsupported}")
    if is_cluster(config.redis_url, timeout_s=REDIS_TIMEOUT_S):
        problems.append(
            "MPESA_REDIS_URL names a Redis Cluster, which is not supported: use a single server or"
            " Sentinel (docs/redis.md)"
        )
    if problems:
        raise ConfigError(problems)
    if look.unusable is not None:
        LOGGER.warning(
            "the database cannot be used yet; requests are answered 503 until it can",
            why=look.unusable,
        )
    if look.is_read_only:
        LOGGER.warning(
            "the database takes no writes (a standby, or read-only mode): requests are answered 503"
            " until it does; where MPESA_DATABASE_URL names several hosts, add"
            " ?target_session_attrs=read-write"
        )
    _warn_of_schema(look.schema_version)


def _warn_of_schema(version: int | None) -> None:
    """A migration may still be under way; until it is done, requests are answered 503."""
    needed = needed_schema_version()
    if version is not None and version < needed:
        LOGGER.warning(
            "the database's schema is behind: requests are answered 503 until"
            " `mpesa-gateway migrate` has run",
            version=version,
            needed=needed,
        )
    if version is not None and version > needed:
        LOGGER.warning(
            "the database's schema is of a later release than this program: a roll-back by one"
            " release works, more is not tested",
            version=version,
            needed=needed,
        )

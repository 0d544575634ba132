"""The only wiring: opens what the processes share, and closes it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mpesa_gateway import __version__, failpoint, masking, metrics
from mpesa_gateway.clients.budget import Budgets
from mpesa_gateway.clients.circuit_breaker import CircuitBreakerRedis
from mpesa_gateway.clients.daraja import Daraja
from mpesa_gateway.clients.egress import Guard, new_session
from mpesa_gateway.clients.token import TokenCache
from mpesa_gateway.clients.webhooks import WebhookClient
from mpesa_gateway.config import Config
from mpesa_gateway.merchants import MerchantDirectory
from mpesa_gateway.store.migrations import load_migrations, migrations_directory
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.tracing import start_tracing, stop_tracing
from mpesa_gateway.usecases.callbacks import Callbacks
from mpesa_gateway.usecases.deliveries import Deliveries
from mpesa_gateway.usecases.gate import Gate
from mpesa_gateway.usecases.payments import Payments
from mpesa_gateway.usecases.push_leases import PushLeases
from mpesa_gateway.usecases.queries import Queries
from mpesa_gateway.usecases.redeliveries import Redeliveries
from mpesa_gateway.usecases.retention import Retention

USER_AGENT = f"mpesa-gateway/{__version__}"
REDIS_TIMEOUT_S = 1.0
# What must go on although every connection of the pool is busy: callbacks, health, push leases.
RESERVED_CONNECTIONS = 2


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def open_redis(url: str, *, timeout_s: float = REDIS_TIMEOUT_S) -> redis.Redis:
    """A client that gives up early: Redis is a bell, nobody waits for it.

    One retry at once, for a connection that went stale; redis-py's own default waits for seconds.
    """
    client: redis.Redis = CircuitBreakerRedis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
    )
    return client


@dataclass(frozen=True)
class Services:
    """What a process works with."""

    config: Config
    clock: Callable[[], datetime]
    pool: Pool
    reserved_pool: Pool
    redis: redis.Redis
    merchants: MerchantDirectory
    tokens: TokenCache
    push_leases: PushLeases
    payments: Payments
    callbacks: Callbacks
    deliveries: Deliveries
    queries: Queries
    redeliveries: Redeliveries
    retention: Retention
    schema_version: int


@contextmanager
def open_services(
    config: Config,
    *,
    clock: Callable[[], datetime] = utc_now,
    guard: Guard | None = None,
    role: str | None = None,
) -> Iterator[Services]:
    """Open pools, clients and the merchant directory; close them at the end.

    `role` names this process in its traces; without one it makes none.
    """
    pool = Pool(config.database_url, size=config.db_max_conns, name="work")
    reserved_pool = Pool(
        config.database_url, size=RESERVED_CONNECTIONS, name="inbox", plans_once=True
    )
    client = open_redis(config.redis_url)
    merchants = MerchantDirectory(config)
    webhook_guard = guard or Guard(
        allow_private=config.webhook_allow_private, denied=config.webhook_denied_cidrs
    )
    if config.failpoints is not None:
        failpoint.arm(failpoint.die_as_told(config.failpoints))
    metrics.MERCHANT_LABELS.allow(
        config.metrics_merchant_max if config.metrics_merchant_label else 0
    )
    metrics.schema_version_needed.set(needed_schema_version())
    masking.hide(*config.secrets())
    if role is not None:
        start_tracing(config.otlp_endpoint, config.traces_sample_ratio, role)
    try:
        pool.open()
        reserved_pool.open()
        merchants.start()
        yield _wire(config, clock, pool, reserved_pool, client, merchants, webhook_guard)
    finally:
        merchants.stop()
        pool.close()
        reserved_pool.close()
        client.close()
        stop_tracing()


def _wire(
    config: Config,
    clock: Callable[[], datetime],
    pool: Pool,
    reserved_pool: Pool,
    client: redis.Redis,
    merchants: MerchantDirectory,
    guard: Guard,
) -> Services:
    daraja = Daraja(new_session(Guard(vet=False), user_agent=USER_AGENT), clock)
    tokens = TokenCache(client, daraja)
    budgets = Budgets(client)
    push_leases = _push_leases(config, reserved_pool, clock)
    return Services(
        config=config,
        clock=clock,
        pool=pool,
        reserved_pool=reserved_pool,
        redis=client,
        merchants=merchants,
        tokens=tokens,
        push_leases=push_leases,
        payments=Payments(
            pool=pool,
            daraja=daraja,
            tokens=tokens,
            leases=push_leases,
            budgets=budgets,
            clock=clock,
            callback_url=config.safaricom_callback_url,
            push_per_minute=config.safaricom_push_per_minute,
            first_query_after=config.query_schedule[0],
            allow_private=config.webhook_allow_private,
        ),
        callbacks=Callbacks(
            pool=pool,
            merchants=merchants.current,
            clock=clock,
            token_required=config.callback_token_required,
        ),
        deliveries=Deliveries(
            pool=pool,
            webhooks=WebhookClient(new_session(guard, user_agent=USER_AGENT)),
            merchants=merchants.current,
            clock=clock,
            lease=config.lease,
            gate=Gate(config.worker_concurrency),
        ),
        queries=Queries(
            pool=pool,
            daraja=daraja,
            tokens=tokens,
            budgets=budgets,
            merchants=merchants.current,
            clock=clock,
            per_minute=config.safaricom_query_per_minute,
            schedule=config.query_schedule,
            lease=config.lease,
        ),
        redeliveries=Redeliveries(pool=pool, clock=clock),
        retention=Retention(
            pool=pool,
            clock=clock,
            callback_bodies=config.retain_callback_bodies,
            attempts=config.retain_attempts,
        ),
        schema_version=needed_schema_version(),
    )


@cache
def needed_schema_version() -> int:
    """The version of the schema that this code was written for."""
    return load_migrations(migrations_directory())[-1].version


def _push_leases(config: Config, pool: Pool, clock: Callable[[], datetime]) -> PushLeases:
    """Renewed by way of the pool that has room when all pushes wait for the other."""
    if config.failpoints is None:
        return PushLeases(pool, clock)
    # A crash test has no time for the real ones.
    return PushLeases(pool, clock, intent=config.lease, sending=config.lease)

"""The only wiring: opens what the processes share, and closes it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import redis

from mpesa_gateway import __version__, failpoint
from mpesa_gateway.clients.budget import Budgets
from mpesa_gateway.clients.circuit_breaker import CircuitBreakerRedis
from mpesa_gateway.clients.daraja import Daraja
from mpesa_gateway.clients.egress import Guard, new_session
from mpesa_gateway.clients.high_water import HighWater
from mpesa_gateway.clients.lookups import Lookups
from mpesa_gateway.clients.redis_pool import new_pool
from mpesa_gateway.clients.token import TokenCache
from mpesa_gateway.clients.webhooks import WebhookClient
from mpesa_gateway.clock import utc_now
from mpesa_gateway.config import Config
from mpesa_gateway.merchants.directory import MerchantDirectory
from mpesa_gateway.store.clock import DatabaseClock
from mpesa_gateway.store.migrations import load_migrations, migrations_directory
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.spool import Spool
from mpesa_gateway.telemetry import masking, metrics
from mpesa_gateway.telemetry.tracing import start_tracing, stop_tracing
from mpesa_gateway.usecases.callbacks import Callbacks
from mpesa_gateway.usecases.database_gauges import DurabilityGauge
from mpesa_gateway.usecases.database_watch import DatabaseWatch
from mpesa_gateway.usecases.deliveries import Deliveries
from mpesa_gateway.usecases.endpoint_limiter import EndpointLimiter, Slots
from mpesa_gateway.usecases.entrance import Entrance
from mpesa_gateway.usecases.held_outcomes import HeldOutcomes
from mpesa_gateway.usecases.ownership import Ledgers
from mpesa_gateway.usecases.payments import Payments
from mpesa_gateway.usecases.push_leases import PushLeases
from mpesa_gateway.usecases.queries import MOST_QUERIES, Queries
from mpesa_gateway.usecases.recovery import Recovery
from mpesa_gateway.usecases.redeliveries import Redeliveries
from mpesa_gateway.usecases.retention import Retention
from mpesa_gateway.usecases.rewriting import Rewriting
from mpesa_gateway.usecases.room import Room

USER_AGENT = f"mpesa-gateway/{__version__}"
REDIS_TIMEOUT_S = 1.0
# What must go on although every connection of the pool is busy: callbacks, health, push leases and
# the heartbeat. One each, opened when it is needed: a commit that hangs must not take health's.
RESERVED_CONNECTIONS = 4


def open_redis(url: str, *, timeout_s: float = REDIS_TIMEOUT_S) -> redis.Redis:
    """A client that gives up early: Redis only notifies, and nobody waits for it."""
    client = CircuitBreakerRedis.from_pool(new_pool(url, timeout_s=timeout_s))
    assert isinstance(client, CircuitBreakerRedis)
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
    held_outcomes: HeldOutcomes
    watch: DatabaseWatch
    payments: Payments
    callbacks: Callbacks
    deliveries: Deliveries
    queries: Queries
    redeliveries: Redeliveries
    retention: Retention
    recovery: Recovery
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
    if role is not None:
        # In commands and tests of single steps the time is the caller's.
        clock = DatabaseClock(reserved_pool, clock)
    client = open_redis(config.redis_url)
    merchants = MerchantDirectory(config, Ledgers(pool, clock))
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
    daraja = Daraja(
        new_session(Guard(vet=False, lookups=Lookups("daraja")), user_agent=USER_AGENT), clock
    )
    # What a token's end is compared with must be the same for all who share it.
    shared = clock if isinstance(clock, DatabaseClock) else None
    tokens = TokenCache(client, daraja, time_s=shared.timestamp if shared else time.time)
    budgets = Budgets(client)
    push_leases = _push_leases(config, reserved_pool, clock)
    held_outcomes = HeldOutcomes(
        pool,
        push_leases,
        clock,
        config.query_schedule[0],
        Spool(config.spool_dir, "outcome") if config.spool_dir is not None else None,
    )
    recovery = Recovery(
        reserved_pool,
        clock=clock,
        rewriting=Rewriting(pool, clock, push_leases.sending, config.query_schedule[0]),
        high_water=HighWater(client, config.token_keys, config.database_url),
        durability=DurabilityGauge(
            config.database_durability, production=config.environment == "production"
        ),
    )
    return Services(
        config=config,
        clock=clock,
        pool=pool,
        reserved_pool=reserved_pool,
        redis=client,
        merchants=merchants,
        tokens=tokens,
        push_leases=push_leases,
        held_outcomes=held_outcomes,
        watch=DatabaseWatch(
            config.database_url,
            reserved_pool,
            (pool,),
            clock,
            read_clock=shared.measure if shared else lambda: None,
        ),
        payments=Payments(
            pool=pool,
            entrance=Entrance(),
            recovery=recovery,
            daraja=daraja,
            tokens=tokens,
            leases=push_leases,
            held_outcomes=held_outcomes,
            budgets=budgets,
            clock=clock,
            callback_url=config.safaricom_callback_url,
            token_keys=config.token_keys,
            push_per_minute=config.safaricom_push_per_minute,
            first_query_after=config.query_schedule[0],
            prompt_life=config.prompt_life,
            allow_private=config.webhook_allow_private,
            prompts_per_phone_per_hour=config.prompts_per_phone_per_hour,
        ),
        callbacks=Callbacks(
            pool=pool,
            merchants=merchants.current,
            clock=clock,
            token_required=config.callback_token_required,
            first_query_after=config.query_schedule[0],
        ),
        deliveries=Deliveries(
            pool=pool,
            webhooks=WebhookClient(new_session(guard, user_agent=USER_AGENT)),
            merchants=merchants.current,
            clock=clock,
            lease=config.lease,
            limiter=EndpointLimiter(Slots.of(config.worker_concurrency), tenancy=merchants.tenancy),
            remember=recovery.remember_webhook,
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
            room=Room(MOST_QUERIES, tenancy=merchants.tenancy),
        ),
        redeliveries=Redeliveries(pool=pool, clock=clock),
        retention=Retention(
            pool=pool,
            clock=clock,
            callback_bodies=config.retain_callback_bodies,
            attempts=config.retain_attempts,
        ),
        recovery=recovery,
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

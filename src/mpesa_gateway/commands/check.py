"""`mpesa-gateway check`: is the configuration right, and does everybody answer?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import click
import redis

from mpesa_gateway.clients.token import TokenRefusedError, TokenUnavailableError
from mpesa_gateway.commands.output import json_option, print_json, print_table
from mpesa_gateway.config import Config, Needs
from mpesa_gateway.errors import ConfigError, GatewayError, UnavailableError
from mpesa_gateway.log import configure_logging
from mpesa_gateway.services import Services, open_redis, open_services
from mpesa_gateway.store.migrations import applied_version, load_migrations, migrations_directory
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.reach import why_not

CONNECT_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. A warning does not fail the check."""

    what: str
    state: str
    detail: str


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Check the configuration, and that Postgres, Redis and Daraja answer.

    Lists every problem at once; exit status 1 when there is one.
    """
    findings = list(_findings())
    failed = [finding for finding in findings if finding.state == "problem"]
    if as_json:
        print_json({"ok": not failed, "findings": [vars(finding) for finding in findings]})
    else:
        rows = [[finding.state, finding.what, finding.detail] for finding in findings]
        print_table("Check", ["state", "what", "detail"], rows)
    sys.exit(1 if failed else 0)


def _findings() -> Iterator[Finding]:
    configure_logging("json", "error")
    try:
        config = Config.from_env(os.environ)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("configuration", "problem", problem)
        yield from _stores(os.environ.get("MPESA_REDIS_URL"))
        return
    yield Finding("configuration", "ok", f"environment {config.environment}")
    for warning in config.warnings:
        yield Finding("configuration", "warning", f"{warning} (an error in production)")
    with open_services(config) as services:
        yield _postgres(services.pool, config.database_url)
        yield _redis(services.redis)
        yield from _merchants(services)


def _stores(redis_url: str | None) -> Iterable[Finding]:
    """Postgres and Redis, although other settings are wrong."""
    try:
        config = Config.from_env(os.environ, Needs.DATABASE)
    except ConfigError:
        return
    pool = Pool(config.database_url, size=1, name="check")
    pool.open()
    try:
        yield _postgres(pool, config.database_url)
    finally:
        pool.close()
    if redis_url:
        yield _redis(open_redis(redis_url))


def _postgres(pool: Pool, url: str) -> Finding:
    needed = load_migrations(migrations_directory())[-1].version
    try:
        with pool.connection("command.check", CONNECT_TIMEOUT_S) as conn:
            version = applied_version(conn)
    except UnavailableError as error:
        return Finding("postgres", "problem", f"{error} ({why_not(url)})")
    if version < needed:
        detail = f"schema version {version}, {needed} is needed; run `mpesa-gateway migrate`"
        return Finding("postgres", "problem", detail)
    return Finding("postgres", "ok", f"schema version {version}")


def _redis(client: redis.Redis) -> Finding:
    try:
        client.ping()
    except (redis.RedisError, ValueError) as error:
        detail = f"does not answer ({type(error).__name__}); is MPESA_REDIS_URL right?"
        return Finding("redis", "problem", detail)
    return Finding("redis", "ok", "answers")


def _merchants(services: Services) -> Iterator[Finding]:
    snapshot = services.merchants.current()
    for file, problem in snapshot.errors.items():
        yield Finding("merchants", "problem", f"{file}: {problem}")
    if not snapshot.by_name:
        yield Finding("merchants", "warning", "there is none: every payment will be refused")
    for merchant in snapshot.by_name.values():
        what = f"daraja for {merchant.name}"
        try:
            # Through the shared cache: a token of our own would end the one in use.
            services.tokens.get(merchant)
        except TokenRefusedError as error:
            yield Finding(what, "problem", f"the credentials are refused: {error}")
        except (TokenUnavailableError, GatewayError) as error:
            yield Finding(what, "problem", f"does not answer at {merchant.base_url}: {error}")
        else:
            yield Finding(what, "ok", merchant.base_url)

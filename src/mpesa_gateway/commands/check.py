"""`mpesa-gateway check`: is the configuration right, and does everybody answer?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import click

from mpesa_gateway.clients.redis_probe import probe
from mpesa_gateway.clients.token import TokenRefusedError, TokenUnavailableError
from mpesa_gateway.commands.output import json_option, print_json, print_table
from mpesa_gateway.config import Config, Needs
from mpesa_gateway.config.unknown import unknown_variables
from mpesa_gateway.domain.advice import KEYS, find_passkey_problem
from mpesa_gateway.domain.durability import concerns
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.domain.query import QueryClass
from mpesa_gateway.errors import ConfigError, GatewayError, SchemaBehindError, UnavailableError
from mpesa_gateway.services import Services, open_services
from mpesa_gateway.store.applied import applied_version
from mpesa_gateway.store.connection_errors import why_not
from mpesa_gateway.store.durability import find_refused_engine, read_durability
from mpesa_gateway.store.engine import find_unsupported
from mpesa_gateway.store.migrations import load_migrations, migrations_directory
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.session import is_through_pooler
from mpesa_gateway.telemetry.log import configure_logging

CONNECT_TIMEOUT_S = 3.0
_READ_ONLY = (
    "the database is read-only: no payment can start; name all of its servers and add"
    " target_session_attrs=read-write (docs/postgres.md)"
)


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

    Example: mpesa-gateway check
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
    for problem in unknown_variables(os.environ):
        yield Finding("configuration", "warning", problem)
    try:
        config = Config.from_env(os.environ)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("configuration", "problem", problem)
        yield from _stores()
        return
    yield Finding("configuration", "ok", f"environment {config.environment}")
    for warning in config.warnings:
        yield Finding("configuration", "warning", f"{warning} (an error in production)")
    with open_services(config) as services:
        yield _postgres(services.pool, config.database_url)
        yield from _durability(services)
        yield from _redis(config.redis_url)
        yield from _merchants(services)


def _stores() -> Iterator[Finding]:
    """Postgres and Redis, although other settings are wrong."""
    with suppress(ConfigError):
        config = Config.from_env(os.environ, Needs.DATABASE)
        pool = Pool(config.database_url, size=1, name="check")
        pool.open()
        try:
            yield _postgres(pool, config.database_url)
        finally:
            pool.close()
    with suppress(ConfigError):
        yield from _redis(Config.from_env(os.environ, Needs.REDIS).redis_url)


def _durability(services: Services) -> Iterator[Finding]:
    """What a crash or a fail-over of this database may lose; nothing when it is away."""
    config = services.config
    try:
        with services.pool.connection("command.durability", CONNECT_TIMEOUT_S) as conn:
            if find_refused_engine(conn) is not None:
                return
            durability = read_durability(conn)
    except UnavailableError:
        return
    if durability.read_only:
        yield Finding("durability", "problem", _READ_ONLY)
    sentences = concerns(
        durability, config.database_durability, production=config.environment == "production"
    )
    for sentence in sentences:
        yield Finding("durability", "warning", sentence)
    if not sentences:
        yield Finding("durability", "ok", f"{durability.level}")
    if not config.token_keys.keys:
        detail = (
            "MPESA_CALLBACK_TOKEN_KEY is not set, and there is no merchant `default` to derive it"
            " from: after a restore, callbacks of lost payments are answered 404"
        )
        yield Finding("durability", "warning", detail)


def _postgres(pool: Pool, url: str) -> Finding:
    needed = load_migrations(migrations_directory())[-1].version
    try:
        with pool.connection("command.check", CONNECT_TIMEOUT_S) as conn:
            unsupported = find_unsupported(conn)
            version = applied_version(conn) if unsupported is None else 0
            way = " through a pooler" if is_through_pooler(conn) else ""
    except SchemaBehindError as error:
        return Finding("postgres", "problem", str(error))
    except UnavailableError as error:
        return Finding(
            "postgres", "problem", f"{error} ({why_not(url)}); is MPESA_DATABASE_URL right?"
        )
    if unsupported is not None:
        return Finding("postgres", "problem", unsupported)
    if version < needed:
        detail = f"schema version {version}, {needed} is needed; run `mpesa-gateway migrate`"
        return Finding("postgres", "problem", detail)
    if version > needed:
        detail = f"schema version {version} is of a later release; this one was built for {needed}"
        return Finding("postgres", "warning", detail)
    return Finding("postgres", "ok", f"schema version {version}{way}")


def _redis(url: str) -> Iterator[Finding]:
    condition = probe(url)
    for problem in condition.problems:
        yield Finding("redis", "problem", f"MPESA_REDIS_URL: {problem}")
    for warning in condition.warnings:
        yield Finding("redis", "warning", warning)
    if not condition.problems:
        yield Finding("redis", "ok", "answers, and takes every command of ours")


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
            token = services.tokens.get(merchant)
        except TokenRefusedError as error:
            yield Finding(what, "problem", f"the credentials are refused: {error}. {KEYS}")
        except (TokenUnavailableError, GatewayError) as error:
            yield Finding(what, "problem", f"does not answer at {merchant.base_url}: {error}")
        else:
            yield Finding(what, "ok", merchant.base_url)
            yield _passkey(services, merchant, token)


def _passkey(services: Services, merchant: Merchant, token: str) -> Finding:
    """Whether Safaricom refuses the passkey: asked by a query about no payment."""
    what = f"passkey of {merchant.name}"
    outcome = services.queries.try_passkey(merchant, token)
    if outcome is None:
        return Finding(what, "warning", "not tried: the minute's queries are used up; try again")
    problem = find_passkey_problem(outcome)
    if problem is not None:
        return Finding(what, "problem", problem)
    if not outcome.is_answer or outcome.kind is not QueryClass.NO_INFORMATION:
        detail = f"not tried: {outcome.message or 'Safaricom did not answer'} ({outcome.code})"
        return Finding(what, "warning", detail)
    return Finding(what, "ok", "a status query was not refused; only a payment proves more")

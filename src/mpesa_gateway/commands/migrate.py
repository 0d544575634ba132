"""`mpesa-gateway migrate`."""

from __future__ import annotations

import uuid

import click

from mpesa_gateway.clock import utc_now
from mpesa_gateway.config import Config
from mpesa_gateway.domain.duration import parse_duration
from mpesa_gateway.store.migrations import (
    load_migrations,
    migrate,
    migrations_directory,
    wait_for_schema,
)
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.usecases.months import Months

WAIT_TIMEOUT = "5m"
POSTGRES_TIMEOUT = "60s"


def _make_months(config: Config) -> None:
    """Make the partitions of the coming months. A worker does what cannot be done now."""
    pool = Pool(config.database_url, size=1, name="migrate")
    pool.open()
    try:
        Months(pool, utc_now, f"migrate {uuid.uuid4()}").refresh()
    finally:
        pool.close()


def run_migrate(config: Config, *, wait: bool, timeout: str | None) -> None:
    """Apply what is missing, or wait until somebody else has.

    Raises SchemaError, and UnavailableError when Postgres has not answered in time.
    """
    migrations = load_migrations(migrations_directory())
    newest = migrations[-1].version
    try:
        deadline_s = parse_duration(
            timeout or (WAIT_TIMEOUT if wait else POSTGRES_TIMEOUT)
        ).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error
    if wait:
        wait_for_schema(config.database_url, newest, deadline_s=deadline_s)
        click.echo(f"The schema is at version {newest}.")
        return
    applied = migrate(config.database_url, migrations, click.echo, deadline_s=deadline_s)
    _make_months(config)
    done = f"{len(applied)} applied" if applied else "nothing to do"
    click.echo(f"The schema is at version {newest}: {done}.")

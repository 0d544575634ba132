"""Progress of a bulk redelivery, live. Nothing depends on it: the workers go on without it."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.usecases.redeliveries import read_redelivery

LOOK_EVERY_S = 1.0


def follow(pool: Pool, redelivery_id: int) -> None:
    """Show it until every chosen webhook has ended, or until Ctrl-C. Raises NotFoundError."""
    view = read_redelivery(pool, redelivery_id)
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}")]
    try:
        with Progress(*columns, TimeElapsedColumn(), refresh_per_second=4) as progress:
            looked = progress.add_task("looked at", total=1.0, words="")
            ended = progress.add_task("webhooks", total=None, words="")
            while True:
                _show(progress, looked, ended, view)
                if view["done"]:
                    break
                time.sleep(LOOK_EVERY_S)
                view = _look(pool, redelivery_id, view)
    except KeyboardInterrupt:
        click.echo(
            "The workers go on. Look again:"
            f" mpesa-gateway deliveries redeliveries {redelivery_id} --watch"
        )


def _look(pool: Pool, redelivery_id: int, before: dict[str, Any]) -> dict[str, Any]:
    """The order now; as it was while Postgres is away."""
    try:
        return read_redelivery(pool, redelivery_id)
    except UnavailableError:
        return before


def _show(progress: Progress, looked: TaskID, ended: TaskID, view: dict[str, Any]) -> None:
    part, states = view["looked_at"], view["now"]
    progress.update(looked, completed=part, words=f"{part:.0%}, {view['chosen']} chosen")
    words = ", ".join(f"{count} {state}" for state, count in states.items() if count) or "none"
    over = sum(states.values()) - states["PENDING"]
    progress.update(ended, total=max(view["chosen"], 1), completed=over, words=words)
    if view["done"]:
        progress.update(ended, completed=max(view["chosen"], 1))

"""`python -m bench [full|short] [--publish] [--only PART]`: run, show, and keep what was found."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

from bench import burst, ingest, payments, pushes, report, roles, shares, webhooks
from bench.figures import Figure, Plan
from bench.rig import MissingToolError, Rig, rig
from mpesa_gateway.telemetry.log import configure_logging

Part = Callable[[Rig, Plan, list[str]], list[Figure]]
# Each with a fresh Postgres whose commits take so many milliseconds longer.
PARTS: dict[str, tuple[float, list[Part]]] = {
    "callbacks": (0, [ingest.measure]),
    "slow-disk": (2, [ingest.measure_slow_disk]),
    "payments": (0, [payments.measure]),
    "pushes": (0, [pushes.measure]),
    "webhooks": (0, [webhooks.measure_lag, webhooks.measure_deliveries]),
    "shares": (0, [shares.measure]),
    "roles": (0, [roles.measure]),
    "burst": (burst.COMMIT_MS, [burst.measure]),
}
CONSOLE = Console(width=140)


@click.command()
@click.argument("form", type=click.Choice(["full", "short"]), default="full")
@click.option("--publish", is_flag=True, help="Write docs/performance.md and docs/performance.svg.")
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="Some parts.")
@click.option("--into", type=click.Path(path_type=Path), default=Path("build/bench"))
def main(form: str, *, publish: bool, only: tuple[str, ...], into: Path) -> None:
    """Measure the gateway against what this machine's Postgres can do."""
    # Only what goes wrong: the product's own code runs in this process too, for one figure.
    configure_logging("json", "warning")
    plan, where, started = Plan.named(form), report.machine(), time.monotonic()
    figures: list[Figure] = []
    notes: list[str] = []
    for name, (commit_ms, parts) in PARTS.items():
        if not only or name in only:
            CONSOLE.print(f"[bold]{name}[/] …")
            figures += _run(commit_ms, parts, plan, notes)
    report.show(figures)
    for note in notes:
        CONSOLE.print(f"- {note}")
    report.write(figures, notes, where=where, into=into)
    CONSOLE.print(f"{where}; {time.monotonic() - started:.0f} s; {into / 'bench.json'}")
    if publish:
        report.publish(figures, notes, where=where, block="bench")
        report.plot(figures, where=where)
    lost = [it for it in figures if "rows missing" in it.name and it.median > 0]
    if lost:
        raise click.ClickException("a callback that was answered 200 is not in Postgres")


def _run(commit_ms: float, parts: list[Part], plan: Plan, notes: list[str]) -> list[Figure]:
    try:
        with rig(commit_ms=commit_ms) as made:
            return [figure for part in parts for figure in part(made, plan, notes)]
    except MissingToolError as error:
        notes.append(f"left out what needs {error}")
        return []


if __name__ == "__main__":
    main()

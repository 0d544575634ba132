"""`python -m bench.scale build|measure`: does the gateway slow down beside ten million payments?

`build` makes the data and leaves it in the directory; `measure` can be run on it again and again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console

from bench import report, scale_load, scale_queries
from bench.scale_build import FRESH, FULL, Built, build, find_built, scale_rig
from mpesa_gateway.store.migrations import (
    apply_migrations,
    load_migrations,
    migrations_directory,
)
from mpesa_gateway.telemetry.log import configure_logging

CONSOLE = Console(width=140)
# Postgres does not run as root, and whom it runs as must be able to reach its directory.
DIRECTORY = Path(tempfile.gettempdir()) / "mpesa-gateway-bench-scale"
INTO = Path("build/bench-scale")
NEEDED_GB_PER_MILLION = 4
# Beside what was built, from the moment on that its open work is no longer as it was built.
MEASURED = "measured"


def _say(text: str) -> None:
    CONSOLE.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False)


@click.group()
def main() -> None:
    """Build, then measure once: the last round's worker does the work that waits."""
    # Only what goes wrong: the product's own code runs in this process too.
    configure_logging("json", "error")


@main.command("build")
@click.option("--rows", default=10_000_000, show_default=True)
@click.option("--directory", type=click.Path(path_type=Path), default=DIRECTORY)
def build_command(rows: int, directory: Path) -> None:
    """Make the data, unless the directory has as many rows and nobody has measured them."""
    found = find_built(directory)
    if found is not None and found.rows == rows and not (directory / MEASURED).exists():
        _say(f"{directory} has {rows:,} payments already")
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    needed, free = rows * NEEDED_GB_PER_MILLION / 1e6, shutil.disk_usage(directory).free / 1e9
    if free < needed:
        raise click.ClickException(
            f"{needed:.0f} GB are needed in {directory}, {free:.0f} are free"
        )
    directory.chmod(0o755)
    built = build(directory, rows, _say)
    _say(f"built {rows:,} payments in {sum(built.seconds.values()) / 60:.0f} min")


@main.command()
@click.option("--directory", type=click.Path(path_type=Path), default=DIRECTORY)
@click.option("--rounds", default=5, show_default=True)
@click.option("--publish", is_flag=True, help="Write docs/performance.md.")
@click.option("--into", type=click.Path(path_type=Path), default=INTO)
def measure(directory: Path, rounds: int, *, publish: bool, into: Path) -> None:
    """Measure what `build` has made."""
    built = find_built(directory)
    if built is None:
        sys.exit(f"{directory} holds nothing: run `make bench-scale`")
    if (directory / MEASURED).exists():
        sys.exit(
            f"{directory} was measured before, which did the work that waited there:"
            " run `make bench-scale`, which builds it again"
        )
    (directory / MEASURED).touch()
    where, started = report.machine(), time.monotonic()
    size = f"{built.rows / 1e6:g} M"
    notes: list[str] = []
    with scale_rig(directory) as rig:
        for name in (FULL, FRESH):
            migrations = load_migrations(migrations_directory())
            apply_migrations(rig.postgres.url(name), migrations, _say)
        with rig.connect_to(FULL) as conn:
            notes += scale_load.vacuums(conn)
        timed = scale_queries.measure(rig, built, rounds, _say)
        figures = [it.figure(size) for it in timed]
        figures += scale_load.measure_writes(rig, rounds, size, _say)
        figures += scale_load.measure_retention(rig, max(1, rounds // 2), notes, _say)
        figures += scale_load.measure_sizes(rig, built)
    notes += _about(built)
    report.show(figures)
    table = scale_queries.table(timed, size)
    report.write(figures, [*notes, *table], where=where, into=into)
    CONSOLE.print(f"{where}; {time.monotonic() - started:.0f} s; {into / 'bench.json'}")
    if publish:
        report.publish(figures[len(timed) :], notes, where=where, block="bench-scale")
        report.replace_block("bench-scale-queries", "\n".join(table))


def _about(built: Built) -> list[str]:
    minutes = sum(built.seconds.values()) / 60
    return [
        (
            f"{built.rows:,} payments, {built.lived:,} of them lived step by step;"
            f" built in {minutes:.0f} min ({built.built_at})"
        ),
        "none: a database without a history, with the same last hour and the same open work",
    ]


if __name__ == "__main__":
    main()

"""`make pictures`: docs/img/demo.svg and docs/img/timeline.svg, from real runs.

Each is what the command really printed on a terminal of that width, drawn by rich.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from harness.dev_stack import dev_stack
from harness.terminal import on_a_terminal, screen, svg
from mpesa_devkit.processes import clean_env

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "img"
GATEWAY = [sys.executable, "-m", "mpesa_gateway"]
DEMO_WIDTH, TIMELINE_WIDTH = 108, 148


def demo(directory: str) -> None:
    """The demo as it ends, from the first payment to the books."""
    lines = screen(on_a_terminal([*GATEWAY, "demo"], DEMO_WIDTH, {}, directory))
    (first,) = [number for number, it in enumerate(lines) if "payments: the last four" in it]
    picture = svg([it.rstrip() for it in lines[first:]], "make demo", DEMO_WIDTH)
    (IMAGES / "demo.svg").write_text(picture, "utf-8")


def timeline(directory: str) -> None:
    """A payment whose push was cut off: nobody knew, and nothing was sent again."""
    with dev_stack(Path(directory)) as dev:
        env = {"MPESA_DATABASE_URL": dev.database_url}
        trigger = [*GATEWAY, "trigger", "connection_cut", "--api", dev.url]
        said = subprocess.run(
            trigger, env=clean_env(env), check=True, capture_output=True, text=True, cwd=directory
        ).stdout
        transaction_id = said.split()[1]
        command = [*GATEWAY, "transactions", "show", transaction_id]
        lines = screen(on_a_terminal(command, TIMELINE_WIDTH, env, directory))
    title = "mpesa-gateway transactions show"
    (IMAGES / "timeline.svg").write_text(svg(lines, title, TIMELINE_WIDTH), "utf-8")


def main() -> None:
    """Draw both, or the one that is named."""
    for name in sys.argv[1:] or ["demo", "timeline"]:
        with tempfile.TemporaryDirectory(prefix="mpesa-test-") as directory:
            {"demo": demo, "timeline": timeline}[name](directory)
            sys.stdout.write(f"{IMAGES / name}.svg\n")


if __name__ == "__main__":
    main()

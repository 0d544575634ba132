"""`make dashboards`: writes the chart's files."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana.build import to_json
from grafana.catalogue import DASHBOARDS

DIRECTORY = Path(__file__).resolve().parents[2] / "charts/mpesa-gateway/files/dashboards"


def main() -> None:
    """Write every file, and nothing but them."""
    DIRECTORY.mkdir(exist_ok=True)
    wanted = {f"{it.name}.json": to_json(it) for it in DASHBOARDS}
    for path in DIRECTORY.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (DIRECTORY / name).write_text(text)
        sys.stdout.write(f"charts/mpesa-gateway/files/dashboards/{name}\n")


if __name__ == "__main__":
    main()

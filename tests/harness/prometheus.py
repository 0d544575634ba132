"""A real Prometheus, Debian's, that scrapes what a test runs and answers queries about it."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import requests
import yaml

from harness.waiting import wait_for
from mpesa_devkit.processes import Process, free_port

ROOT = Path(__file__).resolve().parents[2]
SCRAPE_EVERY_S = 1
TIMEOUT_S = 30.0


@cache
def programs() -> Path:
    """The directory of `prometheus` and `promtool`."""
    printed = subprocess.run(
        [ROOT / "scripts" / "prometheus"], check=True, capture_output=True, text=True, timeout=300
    )
    return Path(printed.stdout.strip())


class QueryError(AssertionError):
    """Prometheus did not take a query."""


@dataclass(frozen=True)
class Series:
    """One series of an answer: labels without the name, and (time, value) pairs."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def values(self) -> list[float]:
        """Its values that are numbers: 0 / 0 is none."""
        return [value for _, value in self.points if not math.isnan(value)]


class Prometheus:
    """Scrapes `targets` (job to `host:port`s) every second; `rules` are files of rule groups.

    `labels` are those that a job's series get, as in Kubernetes the namespace.
    """

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, Sequence[str]],
        *,
        rules: Sequence[Path] = (),
        labels: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    ) -> None:
        self._directory = directory
        self._targets = targets
        self._rules = rules
        self._labels = labels
        self.port = free_port()
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "prometheus.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        self._process = Process(
            "prometheus",
            [
                programs() / "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self._directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=exemplar-storage",
                "--log.level=warn",
            ],
            log=self._directory / "prometheus.log",
        )
        self._process.wait_until(self._is_ready)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stop()

    def _config(self) -> dict[str, Any]:
        interval = f"{SCRAPE_EVERY_S}s"
        return {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": [str(path) for path in self._rules],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [
                        {"targets": list(targets), "labels": dict(self._labels.get(job, {}))}
                    ],
                }
                for job, targets in self._targets.items()
            ],
        }

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=TIMEOUT_S).status_code == 200
        except requests.ConnectionError:
            return False

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **params: Any) -> Any:
        """The data of an answer of the HTTP API. Raises QueryError with Prometheus's own words."""
        answer = requests.get(f"{self.url}/api/v1/{path}", params=params, timeout=TIMEOUT_S)
        body = answer.json()
        if body["status"] != "success":
            raise QueryError(f"{body.get('error')}: {params}")
        return body["data"]

    def query(self, expr: str, at: float | None = None) -> list[Series]:
        """The value of each series now, or at a time."""
        params = {"query": expr} if at is None else {"query": expr, "time": at}
        return [_series(it, [it["value"]]) for it in self.get("query", **params)["result"]]

    def query_range(self, expr: str, start: float, end: float, step_s: float) -> list[Series]:
        """Every series between two times."""
        data = self.get("query_range", query=expr, start=start, end=end, step=step_s)
        return [_series(it, it["values"]) for it in data["result"]]

    def metric_names(self) -> set[str]:
        """Of everything that was ever scraped."""
        return set(self.get("label/__name__/values"))

    def alerts(self) -> list[Mapping[str, str]]:
        """The labels of the alerts that fire now."""
        alerts = self.get("alerts")["alerts"]
        return [it["labels"] for it in alerts if it["state"] == "firing"]

    def wait_until_scraped(self, timeout_s: float = 30.0) -> None:
        """Until every target has answered."""
        wanted = sum(len(targets) for targets in self._targets.values())
        wait_for(
            lambda: len(self.query("up == 1")) == wanted, timeout_s=timeout_s, what="every scrape"
        )


def _series(item: dict[str, Any], points: list[list[Any]]) -> Series:
    labels = {name: value for name, value in item["metric"].items() if name != "__name__"}
    return Series(labels, tuple((float(at), float(value)) for at, value in points))

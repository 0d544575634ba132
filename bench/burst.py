"""Ten times what can be kept: who is answered 200 is in Postgres, the others hear 503 at once."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from typing import Self

import uvloop

from bench import data, pgbench
from bench.figures import Figure, Plan, at_least, at_most
from bench.load import HOST, closed, paced, quantile
from bench.rig import Rig

# A commit that takes so long makes a capacity whose tenfold the generator can send.
COMMIT_MS = 200.0
TIMES = 10
# Enough to fill every flush while one is on its way.
CAPACITY_CONNECTIONS = 256
CONNECTIONS = 1500
LIVE_TIMEOUT_S = 10.0


class _Pulse:
    """Asks /livez ten times a second, on a connection of its own each time."""

    def __init__(self, port: int) -> None:
        self.seconds: list[float] = []
        self.failures = 0
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            started = time.perf_counter()
            if not self._is_live():
                self.failures += 1
            self.seconds.append(time.perf_counter() - started)

    def _is_live(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=LIVE_TIMEOUT_S)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        return False


def measure(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """A burst of 30 s on a disk so slow that the machine can send ten times what it keeps."""
    pgbench.prepare(rig)
    api = rig.api()
    with rig.connect() as conn:
        payments = data.Payments(conn)
        first = closed(
            api.port,
            data.callbacks(payments.take(6000)),
            connections=CAPACITY_CONNECTIONS,
            seconds=3 * plan.seconds,
        )
        capacity = first.per_second
        seconds = 5 if plan.short else 30
        requests = list(data.callbacks(payments.take(int(TIMES * capacity * seconds))))
        with _Pulse(api.port) as pulse:
            burst = uvloop.run(
                paced(
                    api.port,
                    requests,
                    per_second=TIMES * capacity,
                    connections=CONNECTIONS,
                )
            )
        missing = data.count_missing(conn, "callbacks", first.kept + burst.kept)
        offered = len(requests) / burst.seconds / capacity
        answered = set(burst.kept)
        refused = [key for key, _ in requests if key not in answered]
        refused_and_kept = len(refused) - data.count_missing(conn, "callbacks", refused)
    rig.end(api)
    statuses = dict(sorted(burst.statuses.items()))
    notes.append(f"the burst's answers by status (0: none): {statuses}")
    notes.append(f"{refused_and_kept} of the burst were told 503 and kept all the same")
    return [
        Figure("burst: sent ÷ capacity", [offered]),
        Figure("burst: capacity on that disk", [capacity], unit="1/s"),
        Figure("burst: answered 200 ÷ capacity", [len(burst.kept) / seconds / capacity]),
        Figure("burst: rows missing of those answered 200", [float(missing)], at_most(0)),
        Figure(
            "burst: answers that were neither 200 nor 503",
            [float(burst.errors - burst.statuses[503])],
            at_most(0),
        ),
        Figure("burst: p50 of the 503s", [1000 * quantile(burst.refusals, 0.5)], unit="ms"),
        Figure("burst: p99 of the 503s", [1000 * quantile(burst.refusals, 0.99)], unit="ms"),
        Figure("burst: slowest /livez", [max(pulse.seconds)], at_most(1), unit="s"),
        Figure("burst: /livez answered", [1 - pulse.failures / len(pulse.seconds)], at_least(1)),
    ]

"""Postgres away for moments and minutes: every process works again, nothing it knew is lost."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from daraja_simulator.server import RunningSimulator
from harness.hanging import children, hung, send_all
from harness.outage import (
    Load,
    Return,
    assert_nothing_lost,
    measure_return,
    paying,
    probing,
    refusing,
    used_up,
)
from harness.processes import Processes, processes
from harness.receiver import Receiver
from harness.standby import followed, standby_of, url_of_both
from harness.waiting import wait_for
from harness.witnesses import Witnesses
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_devkit.processes import answers

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]
long = pytest.mark.skipif(
    os.environ.get("MPESA_OUTAGES") != "run",
    reason="minutes of load that take both cores: make test-outages runs these",
)

# The promise is 5 s, and each case prints what it measured; the rest is for a machine that does
# other things as well. What a dead pool does is to never come back.
BACK_S = 60.0
Outage = Callable[[EmbeddedPostgres], AbstractContextManager[None]]
# No payment may need to be queried: only callbacks settle here.
SETTINGS = {"query_schedule": "1h", "sweep_interval": "500ms", "db_max_conns": "4"}


@pytest.fixture
def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def gateway(
    tmp_path: Path,
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    port: int,
) -> Iterator[Processes]:
    assert own_postgres.process.is_running()
    with psycopg.connect(own_database_url) as conn:
        conn.execute("TRUNCATE transactions, callbacks CASCADE")
    simulator.change(callback_delay=1.0, push_delay=0.3)
    with processes(
        tmp_path,
        database_url=own_database_url,
        redis_url=redis_url,
        base_url=simulator.url,
        callback_port=port,
        **SETTINGS,
    ) as made:
        yield made


@pytest.fixture
def witnesses(own_database_url: str, simulator: RunningSimulator, receiver: Receiver) -> Witnesses:
    return Witnesses(own_database_url, simulator, receiver)


@dataclass
class Measuring:
    """Measures in the background how soon all works again; `done` prints it."""

    measured: Future[Return]
    case: str
    capsys: pytest.CaptureFixture[str]

    def done(self) -> None:
        back = self.measured.result()
        with self.capsys.disabled():
            sys.stdout.write(f"\n{self.case}: {back}\n")


@pytest.fixture
def measure(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    own_database_url: str,
    url: str,
    receiver: Receiver,
) -> Iterator[Callable[[], Measuring]]:
    """Call it a moment before the outage ends."""
    with ThreadPoolExecutor(1) as thread:

        def begin() -> Measuring:
            measured = thread.submit(
                measure_return, own_database_url, url, receiver, within_s=BACK_S
            )
            return Measuring(measured, request.node.name, capsys)

        yield begin


@pytest.mark.parametrize(
    ("outage", "seconds", "per_second", "repeat_after_s"),
    [
        pytest.param(refusing, 20, 4, 0.2, id="refused, 20 s, 4 a second, impolite"),
        pytest.param(refusing, 60, 8, None, id="refused, 60 s, 8 a second, polite", marks=long),
        pytest.param(refusing, 60, 8, 0.2, id="refused, 60 s, 8 a second, impolite", marks=long),
        pytest.param(refusing, 45, 1, None, id="refused, 45 s, 1 a second, polite", marks=long),
        pytest.param(used_up, 60, 8, 0.2, id="used up, 60 s, 8 a second, impolite", marks=long),
        pytest.param(used_up, 45, 1, None, id="used up, 45 s, 1 a second, polite", marks=long),
    ],
)
def test_after_an_outage_all_is_served_and_nothing_was_lost(  # noqa: PLR0917 - fixtures
    gateway: Processes,
    own_postgres: EmbeddedPostgres,
    witnesses: Witnesses,
    receiver: Receiver,
    port: int,
    url: str,
    measure: Callable[[], Measuring],
    outage: Outage,
    seconds: float,
    per_second: float,
    repeat_after_s: float | None,
) -> None:
    gateway.api(port)
    gateway.worker()
    load = Load(url, receiver.url, per_second, repeat_after_s)
    with probing(url), paying(load):
        wait_for(lambda: len(load.answers) > 3, what="payments")
        with outage(own_postgres):
            time.sleep(seconds)
            measuring = measure()
        measuring.done()

    assert_nothing_lost(witnesses, load, gateway)


@long
def test_with_a_spool_a_kill_during_the_outage_loses_nothing(
    gateway: Processes,
    own_postgres: EmbeddedPostgres,
    witnesses: Witnesses,
    receiver: Receiver,
    tmp_path: Path,
    port: int,
    url: str,
    measure: Callable[[], Measuring],
) -> None:
    """As when the container is restarted: the directory is an `emptyDir`, and stays."""
    spool = tmp_path / "spool"
    api = gateway.api(port, spool_dir=str(spool))
    gateway.worker()
    load = Load(url, receiver.url, 8)
    with paying(load):
        wait_for(lambda: len(load.answers) > 3, what="payments")
        own_postgres.stop()
        wait_for(lambda: list(spool.glob("callback-*.entry")), what="a callback in the spool")
        wait_for(lambda: list(spool.glob("outcome-*.entry")), what="an outcome in the spool")
        time.sleep(4)
        send_all([api.pid, *children(api.pid)], signal.SIGKILL)
        api.kill()
        wait_for(lambda: not answers(port), what="the API's end")
        gateway.start("api", server_port=str(port), spool_dir=str(spool))
        wait_for(lambda: answers(port), timeout_s=60, what="the API's start")
        measuring = measure()
        own_postgres.start()
        measuring.done()

    assert_nothing_lost(witnesses, load, gateway)
    wait_for(lambda: not list(spool.iterdir()), what="an empty spool")


@long
@pytest.mark.parametrize("outage", [refusing, used_up])
@pytest.mark.parametrize("seconds", [20, 180])
def test_probes_alone_kill_no_pool(
    gateway: Processes,
    own_postgres: EmbeddedPostgres,
    port: int,
    url: str,
    measure: Callable[[], Measuring],
    outage: Outage,
    seconds: float,
) -> None:
    gateway.api(port)
    gateway.worker()
    with probing(url):
        with outage(own_postgres):
            time.sleep(seconds)
            measuring = measure()
        measuring.done()


def test_a_primary_that_stands_still_for_good_is_left(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    own_directory: Path,
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    port: int,
    url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGSTOP, for good: its kernel acknowledges. A standby takes over 5 s later."""
    with ExitStack() as stack:
        standby = stack.enter_context(standby_of(own_postgres, own_directory))
        stack.enter_context(followed(own_postgres))
        gateway = stack.enter_context(
            processes(
                tmp_path,
                database_url=url_of_both(own_database_url, own_postgres, standby),
                redis_url=redis_url,
                base_url=simulator.url,
                callback_port=port,
                **SETTINGS,
            )
        )
        gateway.api(port)
        gateway.worker()
        load = Load(url, receiver.url, 4)
        with hung(own_postgres.process.pid):
            with probing(url), paying(load):
                time.sleep(5)
                standby.promote()
                back = measure_return(standby.url("own"), url, receiver, within_s=BACK_S)
                with capsys.disabled():
                    sys.stdout.write(f"\na frozen primary: {back}\n")
            witnesses = Witnesses(standby.url("own"), simulator, receiver)
            assert_nothing_lost(witnesses, load, gateway)
            gateway.is_ready(port)

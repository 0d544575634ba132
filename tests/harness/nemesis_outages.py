"""Faults that take several steps: outages, fail-overs, a restore. Each in a thread of its own."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import psycopg
import redis

from harness.chaos_postgres import kill_all
from harness.chaos_stack import ChaosStack
from harness.hanging import children, send_all
from harness.nemesis_plan import Fault
from harness.standby import Standby
from mpesa_devkit.embedded import EmbeddedPostgres

STEP_TIMEOUT_S = 90.0
LOOK_S = 0.2
# Between the death of a server and its replica's promotion: what an operator's controller takes.
TAKE_OVER_S = 4.0
# An operator compares what is listed with the statement; meanwhile each process writes again.
COMPARES_S = 12.0
HOLD_NOTICED_S = 30.0
# Payments that were answered so long before a loss are asked for again.
REPEATED_S = 40.0
NOWHERE = ("127.0.0.1", "1")


class Course:
    """The steps of one fault, under way. `heal` waits for their end, and raises what went wrong."""

    def __init__(self, steps: Callable[[Course], None]) -> None:
        self._steps = steps
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="fault", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._steps(self)
        except Exception as error:  # noqa: BLE001 - it is raised where the fault heals
            self._error = error

    def is_over(self) -> bool:
        """Whether all steps are done."""
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Let time pass; True when the run ends early."""
        return self._ended.wait(seconds)

    def until(
        self, holds: Callable[[], bool], what: str, timeout_s: float = STEP_TIMEOUT_S
    ) -> None:
        """Wait for it. Raises TimeoutError."""
        give_up = time.monotonic() + timeout_s
        while not _holds(holds):
            if time.monotonic() > give_up:
                raise TimeoutError(what)
            if self.wait(LOOK_S):
                return

    def heal(self) -> None:
        """Called once, by the nemesis."""
        self._ended.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


def _holds(condition: Callable[[], bool]) -> bool:
    with contextlib.suppress(psycopg.Error):
        return condition()
    return False


class Outages:
    """One method a kind of fault."""

    def __init__(self, stack: ChaosStack) -> None:
        self._stack = stack
        self._postgres = stack.postgres
        self._server = stack.servers["postgres"]
        self._operator: Course | None = None

    def begin(self, fault: Fault) -> Course:
        """Begin it; the course heals by itself when its time is over."""
        kinds: dict[str, Callable[[Course, Fault], None]] = {
            "refuse connections": self._refuse,
            "connections used up": self._use_up,
            "disk full": self._fill_disk,
            "redis demoted": self._demote,
            "clock wrong": self._shift_clock,
            "freeze for good": self._freeze,
            "fail over synchronously": self._fail_over,
            "fail over asynchronously": self._fail_over_with_lag,
            "restore a backup": self._restore,
        }
        steps = kinds[fault.kind]
        return Course(lambda course: steps(course, fault))

    # --- Postgres is there, and yet not -----------------------------------------------------------

    def _refuse(self, course: Course, fault: Fault) -> None:
        self._server.is_given_up = True
        self._postgres.server.stop()
        course.wait(fault.lasts_s)
        self._server.is_given_up = False

    def _use_up(self, course: Course, fault: Fault) -> None:
        give_up = time.monotonic() + fault.lasts_s
        with contextlib.ExitStack() as taken:
            first: psycopg.Connection | None = None
            while time.monotonic() < give_up and not course.wait(LOOK_S):
                with contextlib.suppress(psycopg.Error):
                    if first is not None:
                        first.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE application_name LIKE 'mpesa-gateway%'"
                        )
                    while time.monotonic() < give_up:
                        conn = psycopg.connect(
                            self._postgres.url, autocommit=True, connect_timeout=3
                        )
                        taken.callback(conn.close)
                        first = first or conn

    def _fill_disk(self, course: Course, fault: Fault) -> None:
        self._server.is_given_up = True
        course.until(self._stack.disk.fill, "a full disk")
        try:
            course.wait(fault.lasts_s)
        finally:
            self._stack.disk.make_room()
            self._server.is_given_up = False

    # --- another server takes over ----------------------------------------------------------------

    def _follow(self, course: Course) -> Standby:
        standby = self._postgres.make_standby()
        self._postgres.follow_synchronously()
        course.until(self._postgres.is_synchronous, "a synchronous replica")
        return standby

    def _freeze(self, course: Course, fault: Fault) -> None:
        """Its kernel goes on acknowledging what it is sent; nobody tells the gateway."""
        standby = self._follow(course)
        self._server.is_given_up = True
        pid = self._postgres.server.process.pid
        stopped = send_all([pid], signal.SIGSTOP)
        stopped += send_all(children(pid), signal.SIGSTOP)
        course.wait(TAKE_OVER_S)
        frozen = self._take_over(standby)
        course.wait(fault.lasts_s)
        self._postgres.discard(frozen)

    def _fail_over(self, course: Course, fault: Fault) -> None:
        standby = self._follow(course)
        self._die_and_take_over(course, standby)
        course.wait(fault.lasts_s)

    def _fail_over_with_lag(self, course: Course, fault: Fault) -> None:
        """The replica lacks the last seconds: `amount` of them."""
        standby = self._postgres.make_standby()
        self._postgres.cut_off(standby)
        course.until(lambda: self._postgres.is_cut_off(standby), "a replica that lags")
        lags_since = time.time()
        course.wait(fault.amount)
        with self._stack.losing(lags_since):
            self._die_and_take_over(course, standby)
            self._accept(course, lags_since)

    def _die_and_take_over(self, course: Course, standby: Standby) -> None:
        self._server.is_given_up = True
        kill_all(self._postgres.server)
        course.wait(TAKE_OVER_S)
        self._postgres.discard(self._take_over(standby))

    def _take_over(self, standby: Standby) -> EmbeddedPostgres:
        before = self._postgres.lead(standby)
        self._server.process = standby.process
        self._server.is_given_up = False
        return before

    # --- a restore, as docs/recovery.md has it ----------------------------------------------------

    def _restore(self, course: Course, fault: Fault) -> None:
        """The backup is `amount` seconds old."""
        file = self._stack.directory / "backup"
        file.unlink(missing_ok=True)
        made_at = time.time()
        self._postgres.dump(file)
        course.wait(fault.amount)
        why = f"a restore of what was saved {fault.amount} s ago"
        with self._stack.losing(made_at):
            self._postgres.recover("--hold", why=why)
            workers = [self._stack.servers[it] for it in ("worker-1", "worker-2")]
            for worker in workers:
                worker.is_given_up = True
                worker.process.stop()
            self._postgres.restore(file)
            self._postgres.operate("migrate")
            self._postgres.recover("--hold", why=why)
            for worker in workers:
                worker.is_given_up = False
            self._accept(course, made_at)

    def _accept(self, course: Course, lost_since: float) -> None:
        """Clients repeat the keys of what may be lost, before an operator accepts and after."""
        self._stack.repeat(since=lost_since - REPEATED_S)
        with contextlib.suppress(TimeoutError):
            # Without a loss there is no hold.
            course.until(self._is_held, "a hold", HOLD_NOTICED_S)
        apis = [self._stack.servers[it] for it in ("api-1", "api-2")]
        course.until(lambda: all(it.is_ready() for it in apis), "both APIs")
        course.wait(COMPARES_S)
        self._stack.repeat(since=lost_since - REPEATED_S)
        if self._is_held():
            self._postgres.recover("--accept", why="compared with the statement")
            course.until(lambda: not self._is_held(), "the end of the hold")
        self._stack.repeat(since=lost_since - REPEATED_S)

    def _is_held(self) -> bool:
        return bool(self._stack.rows("SELECT id FROM recovery_holds WHERE accepted_at IS NULL"))

    def operate(self) -> None:
        """Accept a hold that a process opened after the others had: it noticed the loss late."""
        if self._operator is None or self._operator.is_over():
            self._operator = Course(self._accept_late)

    def _accept_late(self, course: Course) -> None:
        course.wait(COMPARES_S)
        with contextlib.suppress(psycopg.Error):
            old = self._stack.rows(
                "SELECT id FROM recovery_holds WHERE accepted_at IS NULL"
                " AND opened_at < now() - make_interval(secs => %s)",
                COMPARES_S,
            )
            if old:
                self._postgres.recover("--accept", why="a process noticed the same loss late")
                self._stack.late_holds += 1

    # --- beside Postgres --------------------------------------------------------------------------

    def _demote(self, course: Course, fault: Fault) -> None:
        """Connections stay, and nothing can be written."""
        self._tell_redis("REPLICAOF", *NOWHERE)
        course.wait(fault.lasts_s)
        self._tell_redis("REPLICAOF", "NO", "ONE")

    def _tell_redis(self, *command: str) -> None:
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis.from_url(self._stack.redis_url, socket_timeout=5) as client,
        ):
            client.execute_command(*command)

    def _shift_clock(self, course: Course, fault: Fault) -> None:
        self._stack.clocks.set(fault.target, fault.amount)
        course.wait(fault.lasts_s)
        self._stack.clocks.set(fault.target, 0)

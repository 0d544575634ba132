"""Carries a plan of faults out, and heals them. Called from the main thread's loop only."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
import redis

from harness.chaos_stack import ChaosStack, Server
from harness.hanging import send_all
from harness.nemesis_outages import Outages
from harness.nemesis_plan import OUTAGES, Fault

TERMINATE_EVERY_S = 0.3
_OUTAGES = frozenset(it.name for it in OUTAGES)
Heal = Callable[[], None]


@dataclass(eq=False)
class Done:
    """A fault that was carried out. Times are of time.time(); `healed_at` 0.0 while it lasts."""

    fault: Fault
    began_at: float
    healed_at: float = 0.0
    heal: Heal = field(default=lambda: None, repr=False)
    is_over: Callable[[float], bool] = field(default=lambda _: True, repr=False)


class Nemesis:
    """`tick` begins what is due and heals what is over.

    A fault that is due waits until `may_begin`; what has not begun by `until_s` never does.
    `on_healed` is told of each that heals before the end.
    """

    def __init__(
        self,
        stack: ChaosStack,
        plan: list[Fault],
        *,
        may_begin: Callable[[], bool] = lambda: True,
        until_s: float = math.inf,
        on_healed: Callable[[Done], None] = lambda _: None,
    ) -> None:
        self._stack = stack
        self._waiting = list(plan)
        self._may_begin = may_begin
        self._until_s = until_s
        self._on_healed = on_healed
        self._outages = Outages(stack)
        self._began = time.monotonic()
        self.done: list[Done] = []

    def is_over(self) -> bool:
        """Whether every fault of the plan has healed."""
        return not self._waiting and all(it.healed_at for it in self.done)

    def active(self) -> list[str]:
        """What is wrong now."""
        return [f"{it.fault.kind} ({it.fault.target})" for it in self.done if not it.healed_at]

    def tick(self) -> list[Done]:
        """What began now: one at a time."""
        now_s = time.monotonic() - self._began
        for it in self.done:
            if not it.healed_at and it.is_over(now_s):
                self._heal(it)
                self._on_healed(it)
        if now_s > self._until_s:
            self._waiting.clear()
        if not self._is_due(now_s) or not self._may_begin():
            return []
        fault = self._waiting.pop(0)
        done = Done(fault, time.time(), is_over=lambda now_s: fault.ends_s <= now_s)
        self._carry_out(done)
        self.done.append(done)
        if not fault.lasts_s:
            self._heal(done)
        return [done]

    def operate(self) -> None:
        """What an operator does all the time; a course that loses rows has one of its own."""
        if self._stack.losses and not any(it.fault.alone for it in self.done if not it.healed_at):
            self._outages.operate()

    def _is_due(self, now_s: float) -> bool:
        """Whether the next one's time has come, and nothing keeps it from beginning."""
        if not self._waiting or self._waiting[0].at_s > now_s:
            return False
        fault = self._waiting[0]
        under_way = [it.fault for it in self.done if not it.healed_at]
        # Courses may take longer than their plan.
        is_taken = any(it.alone or it.target == fault.target for it in under_way)
        return not is_taken and not (fault.alone and under_way)

    def heal_all(self) -> None:
        """At the end, also when it comes early."""
        self._waiting.clear()
        for it in self.done:
            if not it.healed_at:
                self._heal(it)

    def _carry_out(self, done: Done) -> None:
        if done.fault.kind in _OUTAGES:
            course = self._outages.begin(done.fault)
            done.heal = course.heal
            done.is_over = lambda _: course.is_over()
        else:
            done.heal = self._begin(done.fault)

    def _heal(self, done: Done) -> None:
        done.heal()
        done.healed_at = time.time()

    # --- one method a kind of fault: begins it, and returns how it heals --------------------------

    def _begin(self, fault: Fault) -> Heal:
        verb, _, rest = fault.kind.partition(" ")
        if verb in ("kill", "stop", "restart"):
            return self._to_process(verb, rest, self._stack.servers[fault.target])
        if verb == "daraja":
            return self._daraja(rest)
        if verb == "endpoint":
            return self._set(self._stack.receiver, "mode", rest, "")
        network = self._stack.network
        others: dict[str, Callable[[], Heal]] = {
            "flushall": self._flushall,
            "terminate backends": self._terminate_backends,
            "swallow commits": lambda: self._set(network, "swallow", fault.amount, 0),
            "slow network": lambda: self._set(network, "delay_s", fault.amount / 1000, 0.0),
            "cut network": lambda: self._set(network, "cut_after", fault.amount, None),
            "frozen network": lambda: self._set(network, "frozen", True, False),
            "idle connections": lambda: self._connect_idly(fault),
            "secret replaced": self._replace_secret,
        }
        return others[fault.kind]()

    def _to_process(self, verb: str, what: str, server: Server) -> Heal:
        if verb == "stop":
            stopped = send_all(server.pids(), signal.SIGSTOP)

            def go_on() -> None:
                send_all(stopped, signal.SIGCONT)

            return go_on
        if verb == "restart":
            server.process.send(signal.SIGTERM)
        elif what == "api's server":
            # gunicorn's child; gunicorn itself replaces it.
            send_all(server.pids()[:-1], signal.SIGKILL)
        else:
            server_pids = server.pids()
            # The postmaster alone: its backends find out by themselves, as after the OOM killer.
            victims = server_pids[-1:] if server.name == "postgres" else server_pids
            send_all(victims, signal.SIGKILL)
            server.process.kill()
        return lambda: None

    def _set(self, thing: object, name: str, bad: object, good: object) -> Heal:
        setattr(thing, name, bad)
        return lambda: setattr(thing, name, good)

    def _daraja(self, what: str) -> Heal:
        simulator = self._stack.simulator
        if what == "forgets tokens":
            simulator.expire_tokens()
            return lambda: None
        name, bad, good = {
            "busy": ("push_failure_rate", 0.5, 0.0),
            "slow": ("push_delay", 4.0, 0.0),
            "drops callbacks": ("callback_drop_rate", 0.6, 0.0),
            "doubles callbacks": ("callback_duplicate_rate", 0.8, 0.0),
            "calls back late": ("callback_delay", 9.0, 1.0),
            "knows nothing": ("query_failure_rate", 0.7, 0.0),
        }[what]
        simulator.change(**{name: bad})
        return lambda: simulator.change(**{name: good})

    def _flushall(self) -> Heal:
        # A Redis that stands still is emptied another time.
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis.from_url(self._stack.redis_url, socket_timeout=1) as client,
        ):
            client.flushall()
        return lambda: None

    def _terminate_backends(self) -> Heal:
        ended = threading.Event()

        def terminate() -> None:
            while not ended.wait(TERMINATE_EVERY_S):
                with contextlib.suppress(psycopg.Error):
                    self._stack.rows(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name LIKE 'mpesa-gateway%' AND random() < 0.5"
                    )

        threading.Thread(target=terminate, daemon=True).start()
        return ended.set

    def _connect_idly(self, fault: Fault) -> Heal:
        api = self._stack.servers[fault.target]
        sockets = []
        for _ in range(fault.amount):
            with contextlib.suppress(OSError):
                sockets.append(socket.create_connection(("127.0.0.1", api.port), timeout=0.2))

        def close() -> None:
            for it in sockets:
                it.close()

        return close

    def _replace_secret(self) -> Heal:
        self._stack.rotate_shop_secret()
        return lambda: None
